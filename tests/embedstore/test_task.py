import pyarrow as pa
import pytest

from embedstore.errors import DataError
from embedstore.task import (
    ImageRule,
    Task,
    join_tasks,
    task_from_json,
    unit_id_of,
    unit_in_words,
    unit_key,
    units_in_words,
)

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
        ({"unit": ""}, "unit must be 'image', 'study' or different manifest columns"),
        ({"unit": "level,level"}, "different manifest columns with commas .*found 'level,level'"),
        ({"unit": "study_id"}, "found 'study_id'; write 'study'"),
        ({"unit": "study_id, level"}, "found 'study_id, level'; write 'study_id,level'"),
        ({"unit": "study_id,level"}, r"label table lacks \['level', 'study_id'\]"),
        ({"positive": "maybe"}, r"positive must be one of the classes \['no', 'yes'\], found 'maybe'"),
        (
            {"positive": "no"},
            r"the second is the positive one, found positive 'no' .*give the classes as \['yes', 'no'\]",
        ),
        ({"images_of_target": {"tumour": ImageRule("plane", ("axial",))}}, r"must name targets \(fracture\)"),
        ({"images_of_target": {"fracture": ImageRule("plane", ())}}, "one value or more of column 'plane'"),
        ({"classes": ("no",)}, "two or more different classes"),
        ({"targets": ("tumour",)}, r"lacks \['tumour'\]"),
        ({"pooling": "median"}, "pooling must be one of"),
        ({"class_weights": (1.0,)}, "2 classes but 1 class weights"),
        ({"labels": pa.table({"unit_id": ["s", "s"], "fracture": ["no", "yes"]})}, "must be unique"),
        ({"labels": pa.table({"unit_id": ["s"], "fracture": ["maybe"]})}, "found 'maybe'$"),
    ],
)
def test_a_wrong_task_is_refused_with_what_was_found(changes, message):
    with pytest.raises(DataError, match=message):
        make_task(**changes)


def test_what_is_new_survives_json_too():
    task = make_task(
        classes=("no", "mild", "yes"),
        ordered=True,
        positive="mild",
        images_of_target={"fracture": ImageRule("plane", ("sagittal", ""))},
    )
    document = task.to_json()
    assert (document["ordered"], document["positive"]) == (True, "mild")
    assert document["images_of_target"] == {"fracture": {"column": "plane", "in": ["sagittal", ""]}}
    assert task_from_json(document, LABELS) == task
    assert (task.positive_class, task.image_rules) == (1, (ImageRule("plane", ("sagittal", "")),))


@pytest.mark.parametrize(
    ("classes", "positive", "position"), [(["no", "yes"], "yes", 1), (["no", "mild", "yes"], None, None)]
)
def test_a_document_from_before_says_no_order_and_of_two_classes_the_second_is_positive(
    classes, positive, position
):
    document = {
        "name": "t",
        "unit": "study",
        "targets": ["fracture"],
        "classes": classes,
        "class_weights": None,
        "pooling": "mean-probability",
        "primary_metric": "auroc",
        "subgroups": [],
    }
    task = task_from_json(document, LABELS)
    assert (task.ordered, task.positive, task.positive_class) == (False, positive, position)
    assert (task.unit_key, task.unit_ids, task.image_rules) == (("study_id",), ["s1", "s2"], (None,))


def test_units_have_the_words_of_today_and_any_columns_make_one():
    assert unit_key("image") == unit_key("image_id") == ("image_id",)
    assert unit_key("study_id , level") == ("study_id", "level")
    assert [unit_in_words(key) for key in (["image_id"], ["study_id"], ["series_id"])] == [
        "image",
        "study",
        "series_id",
    ]
    assert unit_in_words(("study_id", "level")) == "study_id,level"
    assert [units_in_words(unit) for unit in ("image", "study", "study_id,level")] == [
        "images",
        "studies",
        "units (study_id,level)",
    ]


def test_a_key_of_several_columns_is_joined_and_no_two_keys_are_one_id():
    assert unit_id_of(["study_id"], ["s|1"]) == "s|1"
    assert unit_id_of(["study_id", "level"], ["s1", "l4_l5"]) == "s1|l4_l5"
    assert unit_id_of(["study_id", "level"], ["s1", None]) == ""
    with pytest.raises(DataError, match=r"study_id 's\|1': values .*\(study_id, level\) are joined by '\|'"):
        unit_id_of(["study_id", "level"], ["s|1", "l4_l5"])


LEVELS = pa.table({"study_id": ["s1", "s1"], "level": ["l4", "l5"], "fracture": ["no", "yes"]})


def test_labels_of_several_columns_have_the_columns_of_the_key():
    task = make_task(unit="study_id,level", labels=LEVELS)
    assert task.unit_ids == ["s1|l4", "s1|l5"]
    for wrong in ({"level": ["l4", "l4"]}, {"level": ["l4", None]}):
        labels = pa.table({"study_id": ["s1", "s1"], "fracture": ["no", "yes"], **wrong})
        with pytest.raises(DataError, match="study_id, level must be unique and never empty"):
            make_task(unit="study_id,level", labels=labels)


def test_tasks_of_several_stores_are_joined_by_their_keys():
    one = make_task(unit="study_id,level", labels=LEVELS)
    more = pa.table({"study_id": ["s2", "s1"], "level": ["l4", "l5"], "fracture": [None, "yes"]})
    joined = join_tasks([one, make_task(unit="study_id,level", labels=more)], ["one", "other"])
    assert joined.labels.to_pydict() == {
        "study_id": ["s1", "s1", "s2"],
        "level": ["l4", "l5", "l4"],
        "fracture": ["no", "yes", None],
    }
    less = pa.table({"study_id": ["s1"], "level": ["l5"], "fracture": [None]})
    with pytest.raises(
        DataError, match=r"study_id,level 's1\|l5' is labelled 'yes' in one and nothing in other"
    ):
        join_tasks([one, make_task(unit="study_id,level", labels=less)], ["one", "other"])


def test_tasks_that_differ_in_order_are_not_joined():
    with pytest.raises(
        DataError, match="ordered must be the same in every store; found False in one and True"
    ):
        join_tasks([make_task(), make_task(ordered=True)], ["one", "other"])
