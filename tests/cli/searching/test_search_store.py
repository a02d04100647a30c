"""Similar cases from Python, against cosines of all vectors by NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cli.jobs.predict_inputs import predict_inputs
from cli.searching.search_options import SearchOptions, SearchQuery
from cli.searching.search_store import SearchResult, StoreSearch, open_search, search_store
from cli.studying.predict_options import PredictOptions
from embedstore.errors import DataError, Note, UsageError
from embedstore.store.reader import open_store
from embedstore.store.tasks import read_task
from tests.image_files import dataset, dicom_bytes


@pytest.fixture(scope="module")
def opened(phantom: Path) -> StoreSearch:
    return open_search(phantom / "mura.store")


@pytest.fixture
def own(image: Path, phantom: Path) -> str:
    return image.relative_to(phantom / "MURA-v1.1").as_posix()


def cosines(store: Path, image_id: str) -> dict[str, float]:
    """Return the cosine of every image to one, in float64."""
    embeddings = open_store(store).embeddings(dtype=np.float32)
    vectors = embeddings.vectors.astype(np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = embeddings.image_ids.tolist()
    return dict(zip(ids, (units @ units[ids.index(image_id)]).tolist(), strict=True))


def best_of_studies(store: Path, queries: list[str]) -> list[tuple[str, float]]:
    """Return the studies of other patients by their largest cosine to any of the images."""
    best: dict[str, float] = {}
    own = {name.split("/")[2] for name in queries}
    for query in queries:
        for image_id, cosine in cosines(store, query).items():
            study = image_id.rpartition("/")[0]
            if image_id.split("/")[2] not in own:
                best[study] = max(best.get(study, -1.0), cosine)
    return sorted(best.items(), key=lambda pair: -pair[1])


def images_of(result: SearchResult) -> list[str]:
    return [hit.image_id for hit in result.hits]


def test_each_study_is_found_once_by_its_most_similar_image(
    opened: StoreSearch, store: Path, own: str
) -> None:
    found = opened.search(SearchQuery(ids=[own]), SearchOptions(k=1000)).hits
    expected = best_of_studies(store, [own])
    assert [hit.unit_id for hit in found] == [study for study, _ in expected]
    np.testing.assert_allclose([hit.cosine for hit in found], [cosine for _, cosine in expected], atol=1e-6)
    assert all(hit.image_id.startswith(f"{hit.unit_id}/") for hit in found)
    counts = [
        sum(name.startswith(f"{hit.unit_id}/") for name in open_store(store).image_ids) for hit in found
    ]
    assert [hit.images for hit in found] == counts


def test_a_study_is_asked_for_by_all_of_its_images(opened: StoreSearch, store: Path, phantom: Path) -> None:
    folder = next(
        path
        for path in sorted((phantom / "MURA-v1.1/valid").glob("*/*/study*"))
        if len([*path.iterdir()]) > 1
    )
    study = folder.relative_to(phantom / "MURA-v1.1").as_posix()
    images = [f"{study}/{path.name}" for path in sorted(folder.iterdir())]
    by_id = opened.search(SearchQuery(ids=[study]), SearchOptions(k=5))
    expected = best_of_studies(store, images)[:5]
    assert [hit.unit_id for hit in by_id.hits] == [name for name, _ in expected]
    for hit in by_id.hits:
        assert hit.cosine == pytest.approx(cosines(store, hit.query)[hit.image_id], abs=1e-6)
    # Its files, its folder, and its images one by one are the same question.
    for query in (
        SearchQuery(images=[folder]),
        SearchQuery(images=[folder / Path(name).name for name in images]),
        SearchQuery(ids=images),
    ):
        again = opened.search(query, SearchOptions(k=5))
        assert images_of(again) == images_of(by_id)
        assert sorted(entry.image_id for entry in again.queries) == images
    # And predictions name the same cases.
    (answer,) = predict_inputs(phantom / "run", [folder], PredictOptions(cases=store, neighbors=5)).units
    assert [(case["unit_id"], case["image_id"], case["cosine"]) for case in answer["neighbors"]] == [
        (hit.unit_id, hit.image_id, hit.cosine) for hit in by_id.hits
    ]


def test_a_file_of_the_store_is_known_and_finds_itself_where_its_patient_is_wanted(
    opened: StoreSearch, store: Path, image: Path, own: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.png"
    Image.open(image).save(copy)
    options = SearchOptions(k=5, group="image")
    others = opened.search(SearchQuery(images=[copy]), options)
    assert [entry.image_id for entry in others.queries] == [own]
    patient = own.split("/")[2]
    assert all(hit.patient_id != patient for hit in others.hits)
    assert images_of(others) == images_of(opened.search(SearchQuery(ids=[own]), options))
    wanted = SearchOptions(k=5, group="image", same_patient=True)
    found = opened.search(SearchQuery(images=[copy]), wanted).hits
    expected = sorted(cosines(store, own).values(), reverse=True)[:5]
    assert found[0].image_id == own
    np.testing.assert_allclose([hit.cosine for hit in found], expected, atol=1e-6)


def test_what_was_mended_to_show_a_file_is_said(tmp_path: Path, opened: StoreSearch) -> None:
    ramp = np.add.outer(np.arange(32) * 60, np.arange(32) * 50).astype(np.uint16)
    file = tmp_path / "image.dcm"
    file.write_bytes(dicom_bytes(dataset(ramp, bits_stored=12, WindowCenter=30000, WindowWidth=10)))
    said: list[str] = []
    found = opened.search(SearchQuery(images=[file]), SearchOptions(k=1), notify=said.append)
    assert said == [f"note, window-dropped: 1 image: {Note.WINDOW_DROPPED.words}"] == found.notices


def test_an_image_of_the_store_finds_its_patients_others_only_where_they_are_wanted(
    opened: StoreSearch, store: Path, own: str
) -> None:
    patient = own.split("/")[2]
    of_all = cosines(store, own)
    del of_all[own]
    every = SearchOptions(k=1000, group="image", same_patient=True)
    assert set(images_of(opened.search(SearchQuery(ids=[own]), every))) == set(of_all)
    others = opened.search(SearchQuery(ids=[own]), SearchOptions(k=1000, group="image"))
    assert set(images_of(others)) == {image_id for image_id in of_all if patient not in image_id}
    for hit in others.hits:
        assert hit.cosine == pytest.approx(of_all[hit.image_id], abs=1e-5)
    assert "anatomy" in others.columns


def test_conditions_leave_only_images_with_that_value(opened: StoreSearch, own: str) -> None:
    found = opened.search(SearchQuery(ids=[own]), SearchOptions(where=["anatomy~wrist"]))
    assert found.hits
    assert all("XR_WRIST" in hit.image_id for hit in found.hits)
    none = opened.search(SearchQuery(ids=[own]), SearchOptions(where=["anatomy=XR_SKULL"]))
    assert (none.hits, none.compared) == ([], 0)
    assert "anatomy=XR_SKULL leaves none" in none.why_none


def test_labels_and_a_runs_own_probabilities_stand_beside(
    opened: StoreSearch, phantom: Path, own: str
) -> None:
    found = opened.search(SearchQuery(ids=[own]), SearchOptions(k=1000, probe=phantom / "run")).hits
    task = read_task(phantom / "mura.store", "abnormal")
    labels = dict(zip(task.unit_ids, task.labels.to_pylist(), strict=True))
    kept = {
        row["unit_id"]: (row["role"], row["prob_abnormal"])
        for row in pq.read_table(phantom / "run/predictions.parquet").to_pylist()
    }
    assert {hit.beside.source for hit in found if hit.beside} == {"out-of-fold", "evaluation"}
    for hit in found:
        assert hit.labels == {"abnormal": {"abnormal": labels[hit.unit_id]["abnormal"]}}
        assert hit.beside is not None
        assert (hit.beside.source, hit.beside.probabilities["abnormal"]["abnormal"]) == kept[hit.unit_id]


def test_what_the_run_did_not_keep_is_predicted(
    opened: StoreSearch, phantom: Path, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.searching.run_beside import RunBeside
    from heads.runs.run_files import load_run

    run = load_run(phantom / "run")
    beside = RunBeside(run, opened.store, opened.index)
    monkeypatch.setitem(beside.__dict__, "_kept", {})
    (said,) = beside.of_images([opened.index.positions[own]])
    (answer,) = predict_inputs(phantom / "run", [phantom / "mura.store"], PredictOptions(ids=[own])).units
    assert said.source == "predicted"
    assert said.probabilities == {"abnormal": answer["targets"]["abnormal"]["probabilities"]}


def test_what_cannot_be_compared_is_named(opened: StoreSearch, own: str) -> None:
    Path("broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken.png: "):
        opened.search(SearchQuery(images=["broken.png"]))
    with pytest.raises(DataError, match="has no image or study 'nothing'"):
        opened.search(SearchQuery(ids=["nothing"]))
    with pytest.raises(UsageError, match="encoder 'hog' has no text tower"):
        opened.search(SearchQuery(text="hand"))
    with pytest.raises(UsageError, match="for images or for words, not for both"):
        opened.search(SearchQuery(text="hand", ids=[own]))
    with pytest.raises(UsageError, match="give what to search for"):
        opened.search(SearchQuery())
    with pytest.raises(UsageError, match="no task 'age'"):
        opened.search(SearchQuery(ids=[own]), SearchOptions(task="age"))
    with pytest.raises(DataError, match="the query's vector is zero"):
        opened.search(SearchQuery(vectors=[("mine", np.zeros(1152))]))
    with pytest.raises(DataError, match=r"mine: a vector must have the shape \(1152,\); found \(3,\)"):
        opened.search(SearchQuery(vectors=[("mine", np.zeros(3))]))


def test_a_frame_of_a_file_is_searched_for_by_its_number(
    opened: StoreSearch, image: Path, own: str, tmp_path: Path
) -> None:
    other = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    pages = tmp_path / "pages.tif"
    other.save(pages, save_all=True, append_images=[Image.open(image)])
    said: list[str] = []
    first = search_store(opened.store, SearchQuery(images=[pages]), notify=said.append)
    assert said == ["pages.tif has 2 frames; the first is taken, pages.tif#1 names the next"]
    second = opened.search(SearchQuery(images=[f"{pages}#1"]), notify=said.append)
    assert [entry.image_id for entry in second.queries] == [own]
    assert second.queries[0].name == "pages.tif#1"
    assert [(entry.name, entry.image_id) for entry in first.queries] == [("pages.tif", "")]
    assert len(said) == 1
    with pytest.raises(DataError, match="has 2 frames, counted from 0; found no frame 2"):
        opened.search(SearchQuery(images=[f"{pages}#2"]))
