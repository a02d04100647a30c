"""A tiny model that reads images and writes text, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import write_answering_gemma


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random Gemma 3 with tokenizer and processor."""
    folder = tmp_path_factory.mktemp("models") / "tiny-it"
    write_answering_gemma(folder)
    return folder
