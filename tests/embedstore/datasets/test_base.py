"""How readers are found by name, and what one is told when the name or an option is wrong."""

from importlib.metadata import entry_points

import pytest

from embedstore.datasets.base import dataset_names, dataset_reader
from embedstore.errors import UsageError
from embedstore.plugins import DATASETS

REGISTERED = sorted(entry.name for entry in entry_points(group=DATASETS))


@pytest.mark.skipif(not REGISTERED, reason="the package is not installed, so nothing is registered")
@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_reader_loads_and_knows_its_own_name(name):
    reader = dataset_reader(name)
    assert reader.name == name
    assert reader.read.__doc__


@pytest.mark.skipif(not REGISTERED, reason="the package is not installed, so nothing is registered")
def test_an_option_that_a_reader_does_not_take_is_a_usage_error():
    with pytest.raises(UsageError, match=r"dataset 'mura' has no option 'label'; it takes none$"):
        dataset_reader("mura", {"label": ["x"]})
    with pytest.raises(
        UsageError,
        match=r"'table' has no option 'lable'; it takes columns, .*label\. Did you mean 'label'",
    ):
        dataset_reader("table", {"lable": ["x"]})
    with pytest.raises(UsageError, match=r"dataset 'dicom-folder' does not take these options: .*PathLike"):
        dataset_reader("dicom-folder", {"key_file": 7})


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="found 'chexpert'"):
        dataset_reader("chexpert")
    assert dataset_names() == REGISTERED
