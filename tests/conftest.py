"""What every test stands on: no network, no leftovers of one test in another."""

from __future__ import annotations

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Run in an empty folder, so that no embed.toml above is found and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMBEDSTORE_FAILPOINT", raising=False)


def pytest_collection_modifyitems(items):
    # Files with slow tests first: workers take whole files, and one that is long must not be the last.
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def escalated_runs(tmp_path_factory):
    """Name -> run of `tests.finetune.escalation.escalated_runs`; made once, for two folders of tests."""
    from tests.finetune.escalation.escalated_runs import make_runs

    return make_runs(tmp_path_factory.mktemp("runs"))
