"""How readers are found by name, and what one is told when the name or an option is wrong."""

from importlib.metadata import entry_points

import pytest

from embedstore.datasets.base import ENTRY_POINT_GROUP, dataset_names, dataset_reader
from embedstore.errors import UsageError

REGISTERED = sorted(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))


@pytest.mark.skipif(not REGISTERED, reason="the package is not installed, so nothing is registered")
@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_reader_loads_and_knows_its_own_name(name):
    reader = dataset_reader(name)
    assert reader.name == name
    assert reader.read.__doc__


@pytest.mark.skipif(not REGISTERED, reason="the package is not installed, so nothing is registered")
def test_an_option_that_a_reader_does_not_take_is_a_usage_error():
    with pytest.raises(UsageError, match="dataset 'mura' does not take these options"):
        dataset_reader("mura", {"label": ["x"]})


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="found 'chexpert'"):
        dataset_reader("chexpert")
    assert dataset_names() == REGISTERED
