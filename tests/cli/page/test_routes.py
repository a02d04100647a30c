"""What the page answers, against the jobs, libraries and hand calculations that it must agree with."""

from __future__ import annotations

import io
import json
import threading
import time
import zipfile
from functools import partial

import numpy as np
import pytest
from sklearn.decomposition import PCA

from cli.jobs.predict_inputs import predict_inputs
from cli.page import answering
from cli.page.auditing import Audits
from cli.page.memory_files import MemoryFiles, TooMuch
from cli.page.pictures import Pictures
from cli.page.routes import new_page
from cli.page.served_store import Shelf
from cli.page.store_map import cached_tsne, compute_tsne, tsne_file
from cli.searching.audit_job import AuditJob
from cli.searching.search_options import SearchOptions, SearchQuery
from cli.searching.search_store import search_store
from cli.studying.predict_options import PredictOptions
from embedstore import open_store, read_task
from embedstore.audit.audit_store import AuditOptions, audit_store
from embedstore.decoding.decode import DecodeJob
from heads.runs.run_files import load_run
from tests.page_server import catalog_of, grey_dicom


@pytest.fixture(scope="module")
def store(project):
    return open_store(project / "mura.store")


def test_it_names_the_stores_and_their_own_runs(client, store):
    (found,) = client.get("/contents").json["stores"]
    assert found["name"] == "mura"
    assert found["images"] == len(store.embeddings().image_ids)
    assert found["studies"] == len(set(store.table.column("study_id").to_pylist()))
    assert found["phantom"] is True
    assert [(run["name"], run["own"], run["task"]) for run in found["runs"]] == [
        ("abnormal-knn", True, "abnormal")
    ]
    assert list(found["choices"])[:2] == ["split", "anatomy"]
    assert found["choices"]["split"] == ["train", "valid"]


def test_a_row_finds_what_the_search_job_finds(client, store, project):
    image_id = str(store.image_ids[7])
    conditions = ["split=train"]
    expected = search_store(
        store,
        SearchQuery(ids=[image_id]),
        SearchOptions(k=5, where=conditions, probe=project / "runs/abnormal-knn"),
    )
    asked = {"store": "mura", "rows": [7], "k": 5, "equals": {"split": "train"}, "run": "abnormal-knn"}
    found = client.post("/search", asked).json
    assert [case["row"] for case in found["cases"]] == [hit.row for hit in expected.hits]
    assert found["compared"] == expected.compared
    labels = read_task(project / "mura.store", "abnormal")
    truth = dict(zip(labels.unit_ids, labels.labels.column("abnormal").to_pylist(), strict=True))
    for case, hit in zip(found["cases"], expected.hits, strict=True):
        assert case["cosine"] == pytest.approx(hit.cosine, abs=5e-5)
        assert case["labels"] == [truth[case["study"]]]
        assert case["patient"] != found["query"][0]["patient"]
        (said,) = case["run"]["targets"]
        assert said["share"] == pytest.approx(hit.beside.probabilities["abnormal"]["abnormal"], abs=5e-5)
    assert len({case["study"] for case in found["cases"]}) == 5
    every = client.post("/search", {**asked, "group": "image", "k": 50}).json
    assert len(every["cases"]) > len({case["study"] for case in every["cases"]})
    same = client.post(
        "/search", {**asked, "same_patient": True, "group": "image", "equals": {}, "k": 100}
    ).json
    assert found["query"][0]["patient"] in {case["patient"] for case in same["cases"]}


def test_what_is_sent_is_answered_as_embed_predict_answers_it(client, store, project, picture, tmp_path):
    path = tmp_path / "sent.png"
    path.write_bytes(picture)
    run, cases = project / "runs/abnormal-knn", project / "mura.store"
    (expected,) = predict_inputs(run, [path], PredictOptions(cases=cases, workers=1)).units
    sent = client.send([picture], store="mura", run="abnormal-knn").json
    (answer,) = sent["answers"]
    (target,) = answer["targets"]
    shares = {bar["name"]: bar["share"] for bar in target["bars"]}
    assert shares == pytest.approx(expected["targets"]["abnormal"]["probabilities"], abs=1e-6)
    held = [bar["name"] for bar in target["bars"] if bar["in_set"]]
    assert held == expected["targets"]["abnormal"]["conformal_set"]
    assert answer["unlike"] == expected["unlike_training"]
    assert answer["compact"]["targets"]["abnormal"]["decision"] == target["decision"]
    assert "path" not in answer["compact"]
    assert answer["stored"] is False
    # The nearest studies are those that predict names as neighbours, by the vector that is kept.
    found = client.post("/search", {"store": "mura", "sent": sent["id"], "k": 3}).json["cases"]
    assert [case["study"] for case in found] == [case["unit_id"] for case in expected["neighbors"]]


def test_what_the_store_holds_is_known_again_and_not_found(client, store, project):
    row = 3
    file = project / "MURA-v1.1" / store.table.column("path")[row].as_py()
    sent = client.send([file.read_bytes()], store="mura", run="abnormal-knn").json
    assert sent["answers"][0]["stored"] is True
    assert sent["answers"][0]["unit"] == store.table.column("study_id")[row].as_py()
    found = client.post("/search", {"store": "mura", "sent": sent["id"], "k": 100, "group": "image"}).json
    patient = store.table.column("patient_id")[row].as_py()
    assert patient not in {case["patient"] for case in found["cases"]}
    assert len(found["cases"]) == 100


def test_without_a_run_there_are_cases_and_no_answer(client, picture):
    sent = client.send([picture], store="mura").json
    assert sent["answers"] == []
    assert sent["images"] == 1
    assert len(client.post("/search", {"store": "mura", "sent": sent["id"], "k": 4}).json["cases"]) == 4


def test_a_zip_is_the_files_in_it(client, picture):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/1.png", picture)
        archive.writestr("b/2.png", picture)
    alone = client.send([picture], store="mura", run="abnormal-knn").json
    both = client.send([buffer.getvalue()], store="mura", run="abnormal-knn").json
    assert both["images"] == 2
    shares = [answer["targets"][0]["bars"] for answer in (alone["answers"][0], both["answers"][0])]
    assert [bar["share"] for bar in shares[1]] == pytest.approx([bar["share"] for bar in shares[0]], abs=1e-6)


def test_the_grey_values_of_a_dicom_file_are_its_own(client):
    sent = client.send([grey_dicom()], store="mura").json
    assert sent["pictures"] == [{"windowed": True}]
    packed = client.get(f"/sent/{sent['id']}/0/grey").body
    height, width = np.frombuffer(packed, "<u4", 2)
    low, high = np.frombuffer(packed, "<f4", 2, 8)
    assert (height, width, int.from_bytes(packed[16:20], "little")) == (96, 128, 0)
    # PS3.3 C.11.2.1.2.1 with centre 1500 and width 1001: from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2.
    assert (low, high) == (999.5, 1999.5)
    values = np.frombuffer(packed, "<f4", offset=20).reshape(96, 128)
    rows, columns = np.mgrid[0:96, 0:128]
    expected = 1000 + 12 * rows + 8 * columns + np.random.default_rng(0).integers(0, 40, (96, 128))
    np.testing.assert_array_equal(values, expected)


def test_only_the_last_few_things_that_were_sent_are_kept(project, picture, monkeypatch):
    monkeypatch.setattr(answering, "_KEPT_BYTES", 1)
    page = new_page(catalog_of(project), limit_bytes=10**7)
    found = []
    for _ in range(2):
        with MemoryFiles(10**7) as files:
            files.begin()
            files.write(picture)
            found.append(page.desk.answer(files, {"store": "mura"})["id"])
    page.desk.sent(found[1])
    with pytest.raises(answering.DataError, match="no longer kept"):
        page.desk.sent(found[0])
    page.pictures.close()
    page.workshop.close()


def test_the_map_shows_principal_axes(client, store):
    vectors = store.embeddings().vectors.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = PCA(2, svd_solver="full").fit_transform(vectors)
    packed = client.get("/stores/mura/map/points/pca").body
    count = len(vectors)
    assert np.frombuffer(packed, "<u4", count).tolist() == store.embeddings().rows.tolist()
    positions = np.frombuffer(packed, "<f4", offset=4 * count).reshape(-1, 2)
    assert np.abs(positions).max() == pytest.approx(1, abs=1e-6)
    for axis in range(2):
        # Moved, scaled by one factor, and perhaps mirrored.
        assert abs(np.corrcoef(positions[:, axis], expected[:, axis])[0, 1]) > 0.99999
    ratio = np.ptp(positions, axis=0) / np.ptp(expected, axis=0)
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-4)


def test_points_are_coloured_by_labels_columns_and_what_a_run_says(client, store, project):
    found = client.get("/stores/mura/map?run=abnormal-knn").json
    names = [one["name"] for one in found["colours"]]
    codes = {
        name: np.frombuffer(client.get(f"/stores/mura/map/colours/{number}?run=abnormal-knn").body, np.uint8)
        for number, name in enumerate(names)
    }
    studies = store.table.column("study_id").to_pylist()
    task = read_task(project / "mura.store", "abnormal")
    truth = dict(zip(task.unit_ids, task.labels.column("abnormal").to_pylist(), strict=True))
    assert [task.classes[code] for code in codes["abnormal"]] == [truth[study] for study in studies]
    splits = found["colours"][names.index("split")]["classes"]
    assert [splits[code] for code in codes["split"]] == store.table.column("split").to_pylist()
    run = load_run(project / "runs/abnormal-knn")
    said = {
        row["unit_id"]: (row["prob_abnormal"], row["label"])
        for row in run.predictions.to_pylist()
        if row["prob_abnormal"] is not None
    }
    for study, share, error in zip(
        studies, codes["probability of abnormal: abnormal"], codes["error: abnormal"], strict=True
    ):
        probability, _ = said[study]
        assert share == round(probability * 254)
        assert (
            abs(int(error) - round((1 - probability if truth[study] == "abnormal" else probability) * 254))
            <= 1
        )
    assert "probability" not in " ".join(
        one["name"] for one in client.get("/stores/mura/map").json["colours"]
    )


def test_a_t_sne_map_is_kept_beside_the_store_while_it_is_of_it(project, store, monkeypatch):
    shelf = Shelf(catalog_of(project))
    served = shelf.served("mura")
    assert cached_tsne(served) is None
    place = compute_tsne(served)
    assert place == tsne_file(served)
    assert place.parent.parent == project
    found = cached_tsne(served)
    assert found.shape == (len(served.rows), 2)
    # Neighbours by cosine are neighbours on the map far more often than chance would have it.
    vectors = served.index.vectors.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = np.argsort(-(vectors @ vectors.T), axis=1)[:, 1]
    distances = np.linalg.norm(found[:, None] - found[None], axis=2)
    ranks = (distances < distances[np.arange(len(found)), nearest][:, None]).sum(1)
    assert np.median(ranks) < len(found) / 20
    content = store.content_sha256()
    content[0] = 1
    monkeypatch.setattr(type(served.store), "content_sha256", lambda self: content)
    assert cached_tsne(served) is None  # another picture lies in the store: the map is not of it
    monkeypatch.undo()
    place.write_bytes(b"damaged")
    assert cached_tsne(served) is None
    place.unlink()


def test_chosen_rows_are_listed_with_their_ids(client, store):
    rows = [5, 2, 9]
    brief = client.post("/rows", {"store": "mura", "rows": rows, "brief": True}).json["images"]
    assert brief == [
        [row, str(store.image_ids[row]), store.table.column("study_id")[row].as_py()] for row in rows
    ]
    facts = client.post("/rows", {"store": "mura", "rows": rows}).json["images"]
    assert [one["row"] for one in facts] == rows
    assert client.post("/rows", {"store": "mura", "rows": [10**6]}).status == 400


def test_an_audit_is_made_beside_the_page_and_shown(client, store, monkeypatch):
    # By vectors alone, which takes a tenth of the time.
    monkeypatch.setattr("cli.page.auditing.AuditJob", partial(AuditJob, pictures=False))
    assert client.get("/stores/mura/audit").json == {"state": "none"}
    assert client.post("/stores/mura/audit", {}).json["state"] == "working"
    assert client.post("/stores/mura/audit", {}).status == 400  # one at a time
    began = time.monotonic()
    while (found := client.get("/stores/mura/audit").json)["state"] == "working":
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    expected = audit_store(store, AuditOptions(pictures=False))
    assert found["state"] == "done"
    assert {kind["kind"]: kind["count"] for kind in found["kinds"]} == expected.counts
    assert found["pictures"] == expected.pictures
    for kind in found["kinds"]:
        for shown, own in zip(kind["findings"], expected.of_kind(kind["kind"]), strict=False):
            assert shown["why"] == own.why
            assert [str(store.image_ids[image["row"]]) for image in shown["images"]] == list(
                own.image_ids[:6]
            )


def test_an_audit_ends_with_the_page(project, monkeypatch):
    told = threading.Event()

    def endless(job, *, progress):
        while True:
            progress(1, 9)
            told.set()
            time.sleep(0.01)

    monkeypatch.setattr("cli.page.auditing.run_audit", endless)
    audits = Audits(Shelf(catalog_of(project)))
    audits.begin("mura")
    assert told.wait(5)
    assert audits.state("mura") == {"state": "working", "done": 1, "total": 9}
    audits.close()
    assert audits.state("mura") == {"state": "failed", "error": "the page has ended"}


def test_a_store_whose_encoder_has_no_words_is_not_asked_by_words(client):
    assert client.get("/stores/mura/words").json == {"words": False}
    answer = client.post("/search", {"store": "mura", "text": "a fracture"})
    assert answer.status == 400
    assert "has no text tower" in answer.json["error"]


def test_a_run_is_shown_with_its_intervals_and_its_report(client, project):
    found = client.get("/runs/abnormal-knn").json
    document = json.loads((project / "runs/abnormal-knn/run.json").read_text())
    shown = {one["name"]: one for one in found["metrics"]}
    assert shown["AUROC"]["value"] == document["metrics"]["auroc"]["value"]
    assert shown["AUROC"]["low"] == document["metrics"]["auroc"]["low"]
    assert (
        client.get("/runs/abnormal-knn/report").body
        == (project / "runs/abnormal-knn/report.html").read_bytes()
    )
    assert client.get("/runs/other").status == 400


def test_a_store_that_grows_is_opened_again(project, monkeypatch):
    monkeypatch.setattr("cli.page.served_store.LOOK_S", 0.0)
    shelf = Shelf(catalog_of(project))
    first = shelf.served("mura")
    assert shelf.served("mura") is first
    document = project / "mura.store" / "store.json"
    document.touch()
    assert shelf.served("mura") is not first


def test_pictures_are_kept_within_a_bound(monkeypatch, picture, tmp_path):
    monkeypatch.setattr("cli.page.pictures._KEPT_BYTES", 20_000)
    path = tmp_path / "one.png"
    path.write_bytes(picture)
    pictures = Pictures()
    try:
        for number in range(12):
            shown = pictures.jpeg(DecodeJob(str(path)), "small", key=number)
        assert pictures.jpeg(DecodeJob(str(path)), "small", key=11) == shown
        assert pictures._bytes <= 20_000
        assert pictures._bytes == sum(map(len, pictures._kept.values()))
        assert len(pictures._kept) >= 2
    finally:
        pictures.close()


def test_files_in_memory_are_counted(monkeypatch):
    monkeypatch.setattr("cli.page.memory_files.MOST_FILES", 2)
    with MemoryFiles(10) as files:
        files.begin()
        files.write(b"12345")
        files.begin()
        with pytest.raises(TooMuch, match="0 MB"):
            files.write(b"123456")
        with pytest.raises(TooMuch, match="at most 2 files"):
            files.begin()


def test_what_is_no_image_is_left_out_beside_images_and_refused_alone(client, picture):
    sent = client.send([picture, b"dictated, not read\n"], store="mura", run="abnormal-knn").json
    assert sent["images"] == 1
    assert sent["notices"] == ["left out, no image: 1 file"]
    assert "Answered from a part" not in str(sent["answers"][0]["notes"])
    alone = client.send([b"dictated, not read\n"], store="mura", run="abnormal-knn")
    assert alone.status == 400
    assert "neither DICOM nor a known picture" in alone.json["error"]


def test_files_of_several_studies_are_answered_each(client, store, project):
    studies = store.table.column("study_id").to_pylist()
    rows = [studies.index(name) for name in list(dict.fromkeys(studies))[:3]]
    files = [(project / "MURA-v1.1" / store.table.column("path")[row].as_py()).read_bytes() for row in rows]
    sent = client.send(files, store="mura", run="abnormal-knn").json
    assert [answer["unit"] for answer in sent["answers"]] == [studies[row] for row in rows]
