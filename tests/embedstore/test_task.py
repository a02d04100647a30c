import pyarrow as pa
import pytest

from embedstore.errors import DataError
from embedstore.task import Task, task_from_json

LABELS = pa.table({"unit_id": ["s1", "s2"], "fracture": ["no", None]})


def make_task(**changes):
    fields = {
        "name": "t",
        "unit": "study",
        "targets": ("fracture",),
        "classes": ("no", "yes"),
        "labels": LABELS,
    }
    return Task(**{**fields, **changes})


def test_a_task_survives_json():
    task = make_task(class_weights=(1.0, 2.0), subgroups=("anatomy",), primary_metric="kappa")
    assert task_from_json(task.to_json(), LABELS) == task


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "may hold letters, digits"),
        ({"name": ".."}, "must not begin with a dot"),
        ({"unit": "patient"}, "unit must be 'image' or 'study', found 'patient'"),
        ({"classes": ("no",)}, "two or more different classes"),
        ({"targets": ("tumour",)}, r"lacks \['tumour'\]"),
        ({"pooling": "median"}, "pooling must be one of"),
        ({"class_weights": (1.0,)}, "2 classes but 1 class weights"),
        ({"labels": pa.table({"unit_id": ["s", "s"], "fracture": ["no", "yes"]})}, "must be unique"),
        ({"labels": pa.table({"unit_id": ["s"], "fracture": ["maybe"]})}, r"found \['maybe'\]"),
    ],
)
def test_a_wrong_task_is_refused_with_what_was_found(changes, message):
    with pytest.raises(DataError, match=message):
        make_task(**changes)
