"""Similar images from Python, against cosines of all vectors by NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli.jobs.search_store import SearchOptions, search_by_file, search_by_id, search_by_words
from embedstore.errors import DataError, Note, UsageError
from embedstore.store.reader import open_store
from tests.image_files import dataset, dicom_bytes


def cosines(store: Path, image_id: str) -> dict[str, float]:
    """Return the cosine of every image to one, in float64."""
    embeddings = open_store(store).embeddings(dtype=np.float32)
    vectors = embeddings.vectors.astype(np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = embeddings.image_ids.tolist()
    return dict(zip(ids, (units @ units[ids.index(image_id)]).tolist(), strict=True))


@pytest.fixture
def image(phantom: Path) -> Path:
    return min((phantom / "MURA-v1.1/valid").glob("XR_*/patient*/study*/image*.png"))


def test_a_file_of_the_store_finds_itself_and_then_the_largest_cosines(
    phantom: Path, store: Path, image: Path
) -> None:
    own = image.relative_to(phantom / "MURA-v1.1").as_posix()
    found = search_by_file(str(store), str(image), SearchOptions(k=5)).neighbors
    assert found[0].image_id == own
    expected = sorted(cosines(store, own).values(), reverse=True)[:5]
    np.testing.assert_allclose([entry.similarity for entry in found], expected, atol=2e-3)


def test_what_was_mended_to_show_a_file_is_said(tmp_path: Path, store: Path) -> None:
    ramp = np.add.outer(np.arange(32) * 60, np.arange(32) * 50).astype(np.uint16)
    file = tmp_path / "image.dcm"
    file.write_bytes(dicom_bytes(dataset(ramp, bits_stored=12, WindowCenter=30000, WindowWidth=10)))
    said: list[str] = []
    search_by_file(store, file, SearchOptions(k=1), notify=said.append)
    assert said == [f"note, window-dropped: 1 image: {Note.WINDOW_DROPPED.words}"]


def test_an_image_of_the_store_finds_others_its_patients_only_where_they_are_wanted(
    phantom: Path, store: Path, image: Path
) -> None:
    own = image.relative_to(phantom / "MURA-v1.1").as_posix()
    patient = own.split("/")[2]
    of_all = cosines(store, own)
    del of_all[own]
    same = search_by_id(store, own, SearchOptions(k=1000), same_patient=True)
    assert {entry.image_id for entry in same.neighbors} == set(of_all)
    others = search_by_id(store, own, SearchOptions(k=1000))
    assert {entry.image_id for entry in others.neighbors} == {
        image_id for image_id in of_all if patient not in image_id
    }
    for entry in others.neighbors:
        assert entry.similarity == pytest.approx(of_all[entry.image_id], abs=1e-5)
    assert "anatomy" in same.columns


def test_conditions_leave_only_images_with_that_value(phantom: Path, store: Path, image: Path) -> None:
    own = image.relative_to(phantom / "MURA-v1.1").as_posix()
    found = search_by_id(store, own, SearchOptions(where={"anatomy": "XR_WRIST"})).neighbors
    assert found
    assert all("XR_WRIST" in entry.image_id for entry in found)
    assert search_by_id(store, own, SearchOptions(where={"anatomy": "XR_SKULL"})).neighbors == []


def test_what_cannot_be_compared_is_named(store: Path) -> None:
    Path("broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken.png: "):
        search_by_file(store, "broken.png")
    with pytest.raises(DataError, match="nothing"):
        search_by_id(store, "nothing")
    with pytest.raises(UsageError, match="encoder 'hog' has no text tower"):
        search_by_words(store, "hand")
