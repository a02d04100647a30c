"""Installed packages that offer encoders, data sets and heads: sound ones, broken ones, two of one name."""

from __future__ import annotations

import functools

import pytest

from embedstore.datasets.base import dataset_names, dataset_reader
from embedstore.encoders.registry import encoder_names, image_encoder
from embedstore.errors import PluginError, UsageError
from embedstore.plugins import (
    DATASETS,
    ENCODERS,
    HEADS,
    find_plugin,
    own_options,
    plugins,
    require_options,
)
from heads.registry import head_class, head_names, head_package
from tests.plugin_packages import install

BROKEN = {
    "broken_import": "import no_such_library",
    "broken_syntax": "def (",
    "broken_exit": "raise RuntimeError('needs\\n  a licence')",
    "broken_name": "",
}


@pytest.fixture
def _broken(tmp_path, monkeypatch):
    install(
        tmp_path,
        "their-plugins",
        {
            ENCODERS: {"their-encoder": "broken_import:Encoder"},
            DATASETS: {"their-data": "broken_syntax:Reader"},
            HEADS: {"their-head": "broken_exit:Head", "their-other-head": "broken_name:Head"},
        },
        BROKEN,
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_broken")
@pytest.mark.parametrize(
    ("use", "kind", "reason"),
    [
        (
            lambda: image_encoder("their-encoder"),
            "encoder 'their-encoder'",
            "No module named 'no_such_library'",
        ),
        (lambda: dataset_reader("their-data"), "dataset 'their-data'", "SyntaxError: invalid syntax"),
        (lambda: head_class("their-head"), "head 'their-head'", "RuntimeError: needs a licence"),
        (lambda: head_class("their-other-head"), "head 'their-other-head'", "has no attribute 'Head'"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line_that_names_its_package(use, kind, reason):
    with pytest.raises(PluginError) as caught:
        use()
    line = str(caught.value)
    assert line.startswith(f"{kind} of package their-plugins 1.2 cannot be loaded: ")
    assert reason in line
    assert "\n" not in line


@pytest.mark.usefixtures("_broken")
def test_beside_a_broken_plugin_names_are_listed_and_others_work():
    assert {"their-encoder", "hog"} <= set(encoder_names())
    assert {"their-data", "mura"} <= set(dataset_names())
    assert {"their-head", "knn"} <= set(head_names())
    assert head_package("their-head") == "their-plugins"
    assert image_encoder("hog").name == "hog"
    assert dataset_reader("mura").name == "mura"
    assert [plugin.version for plugin in plugins(HEADS) if plugin.package == "their-plugins"] == [
        "1.2",
        "1.2",
    ]


def test_a_name_that_two_packages_offer_is_refused(tmp_path, monkeypatch):
    for package in ("one-package", "other-package"):
        install(tmp_path, package, {ENCODERS: {"twice": "math:pi"}}, {})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="'twice' is offered by the packages one-package and other-package"):
        find_plugin(ENCODERS, "twice")
    assert find_plugin(ENCODERS, "never") is None


def _factory(preset=None, *, channels=8, depth=2):
    return preset, channels, depth


def test_own_options_are_the_keywords_that_have_no_option_of_their_own():
    assert own_options(_factory, reserved=("preset",)) == ["channels", "depth"]
    assert own_options(functools.partial(_factory, "pad"), reserved=("preset",)) == ["channels", "depth"]
    assert own_options(lambda **anything: anything) is None


def test_an_unknown_option_is_answered_with_the_known_ones():
    require_options(_factory, {"channels": 16}, what="encoder 'x'", reserved=("preset",))
    require_options(lambda **anything: anything, {"whatever": 1}, what="encoder 'x'")
    wanted = "encoder 'x' has no option 'chanels'; it takes channels, depth. Did you mean 'channels'?"
    with pytest.raises(UsageError) as caught:
        require_options(_factory, {"chanels": 16}, what="encoder 'x'", reserved=("preset",))
    assert str(caught.value) == wanted
    with pytest.raises(UsageError, match="has no option 'preset'"):
        require_options(_factory, {"preset": "hf"}, what="encoder 'x'", reserved=("preset",))
