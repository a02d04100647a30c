"""Stored images are embedded again before new ones are added: other arithmetic is named before it mixes."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.errors import StoreError
from embedstore.extraction.extract import ExtractOptions, Observer, extract
from embedstore.store.reader import open_store
from tests.pictures import collection_of, write_pictures
from tests.stores import MeanEncoder

OPTIONS = ExtractOptions(chunk_rows=4, batch_size=3, workers=1)


class OtherArithmetic(MeanEncoder):
    """Multiplies vectors by a factor, as another library might by accident."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = np.float32(factor)
        self.encoded = 0

    def encode(self, pixels):
        self.encoded += len(pixels)
        return super().encode(pixels) * self.factor


@pytest.fixture
def folder(tmp_path):
    write_pictures(tmp_path / "images", range(12))
    extract(collection_of(tmp_path / "images", 9), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    return tmp_path


def continued(folder, encoder, count=12):
    lines: list[str] = []
    collection = collection_of(folder / "images", count)
    extract(collection, folder / "s", encoder, options=OPTIONS, observer=Observer(say=lines.append))
    return lines


def test_the_same_vectors_are_not_mentioned(folder):
    assert continued(folder, MeanEncoder()) == []
    assert open_store(folder / "s").embeddings().vectors.shape == (12, 4)


def test_another_vector_stops_the_extraction_before_anything_is_planned_anew(folder):
    with pytest.raises(StoreError, match=r"no longer makes the vectors .* differ by 0\.01 of their length"):
        continued(folder, OtherArithmetic(1.01))
    store = open_store(folder / "s")
    assert len(store.embeddings().image_ids) == 9
    # With what made them before, it goes on.
    assert continued(folder, MeanEncoder()) == []


def test_rounding_is_said_and_goes_on(folder):
    (line,) = continued(folder, OtherArithmetic(1.0004))
    assert line.startswith("5 stored images were embedded again: they differ by 0.000")
    assert len(open_store(folder / "s").embeddings().image_ids) == 12


def test_changed_versions_are_named(folder, monkeypatch):
    monkeypatch.setattr(
        "embedstore.extraction.extract.library_versions", lambda: {"numpy": "99.0", "embedstore": "0.1.0"}
    )
    with pytest.raises(StoreError, match=rf"numpy was {np.__version__}, is 99\.0"):
        continued(folder, OtherArithmetic(1.01))


def test_missing_files_are_passed_over_and_nothing_to_do_asks_no_encoder(folder):
    for number in (0, 4, 8):
        (folder / "images" / f"image{number}.png").unlink()
    encoder = OtherArithmetic(1.0)
    assert continued(folder, encoder) == []
    assert encoder.encoded == 5 + 3 + 1  # five again, three new ones, one by itself
    encoder = OtherArithmetic(2.0)
    continued(folder, encoder)
    assert encoder.encoded == 0


def test_a_stored_image_that_fails_now_stops_the_extraction(folder):
    class Broken(MeanEncoder):
        def encode(self, pixels):
            return np.full((len(pixels), 4), np.nan, np.float32)

    with pytest.raises(StoreError, match="a stored image has no vector any more: image"):
        continued(folder, Broken())
