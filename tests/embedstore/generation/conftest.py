"""A tiny model that reads images and writes text, and a store of phantom studies, each made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedstore.datasets.base import read_dataset
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.phantoms.lumbar import write_phantom_lumbar
from tests.checkpoints import write_answering_gemma
from tests.stores import MeanEncoder


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random Gemma 3 with tokenizer and processor."""
    folder = tmp_path_factory.mktemp("models") / "tiny-it"
    write_answering_gemma(folder)
    return folder


@pytest.fixture(scope="session")
def lumbar_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of three phantom studies beside their files; tests copy it before they change a file."""
    folder = tmp_path_factory.mktemp("lumbar")
    root = write_phantom_lumbar(folder, studies=2).root
    options = ExtractOptions(workers=2)
    extract(read_dataset("rsna-lumbar", root), folder / "lumbar.store", MeanEncoder(), options=options)
    return folder / "lumbar.store"
