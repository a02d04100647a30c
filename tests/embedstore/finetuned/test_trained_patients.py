"""Who taught an encoder: kept with every store of it, and asked before anybody is judged by it."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from cli.searching.evaluate_search import evaluate_search
from embedstore.encoders.registry import image_encoder
from embedstore.errors import DataError
from embedstore.extraction.extract import extract
from embedstore.finetuned.trained_patients import TrainedPatients, trained_patients
from embedstore.queries.load_view import load_view
from embedstore.store.reader import open_store
from embedstore.store.tasks import read_task
from finetune.fine_tuning import fine_tune
from heads.comparing.comparison_table import comparison_table
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from heads.protocol.splits import with_trained_units
from heads.retrieval.evaluate_retrieval import RetrievalOptions
from heads.runs.run_files import load_run, save_run
from tests.finetune.lessons import STORE, TASK, job_of, recipe_of, write_lesson
from tests.pictures import Collection


def test_a_patient_is_known_by_a_digest_that_the_salt_begins():
    found = trained_patients(["p1"], ["p1", "p2"], salt="salt")
    assert found.taught == {hashlib.sha256(b"salt\0p1").hexdigest()[:16]}
    assert found.parts_of(["p2", "p1", "p3"]).tolist() == ["judged", "taught", ""]
    assert TrainedPatients.from_json(json.loads(json.dumps(found.to_json())), source="x") == found
    later = trained_patients(["p2"], ["p3"], salt="salt").with_earlier(found)
    assert later.parts_of(["p1", "p2", "p3"]).tolist() == ["taught", "taught", "judged"]


@pytest.fixture(scope="module")
def tuned_store(tmp_path_factory):
    """A store of an encoder that was fine-tuned on 48 of 60 patients, 8 of whom judged."""
    folder = tmp_path_factory.mktemp("trained")
    write_lesson(folder, patients=60)
    tuned = fine_tune(job_of(folder, "encoder", recipe_of(epochs=1)))
    before = open_store(folder / STORE)
    collection = Collection(
        "test", folder / "images", before.parts[0].manifest, (read_task(folder / STORE, TASK),)
    )
    encoder = image_encoder(str(tuned.folder), device="cpu", dtype="float32")
    extract(collection, folder / "tuned.store", encoder)
    return folder / "tuned.store"


def test_a_store_of_a_fine_tuned_encoder_knows_whom_it_was_trained_on(tuned_store):
    view = load_view(tuned_store, TASK)
    parts = dict(zip(*np.unique(view.trained, return_counts=True), strict=True))
    assert parts == {"": 12, "judged": 7, "taught": 41}
    assert load_view(tuned_store.parent / STORE, TASK).trained is None


def test_a_probe_on_patients_who_taught_the_encoder_is_refused_unless_asked_for(tuned_store, tmp_path):
    view = load_view(tuned_store, TASK)
    options = ProbeOptions(head="knn", folds=2, draws=10)
    with pytest.raises(DataError, match=r"fine-tuned on the patients of 41 units .* 48 to be evaluated on"):
        probe(view, options)
    held_out = with_trained_units(view, "leave-out")
    assert len(held_out.unit_ids) == 12
    assert not held_out.trained.astype(bool).any()
    assert held_out.X.shape[0] == 24
    assert held_out.excluded["patient whose images taught the encoder"] == 41
    run = save_run(tmp_path / "held-out", probe(held_out, options))
    assert run.document["warnings"] == [
        entry for entry in run.document["warnings"] if entry["kind"] != "trained patients"
    ]
    used = save_run(tmp_path / "used", probe(with_trained_units(view, "use"), options))
    assert used.document["warnings"][0]["text"].startswith("48 of 60 evaluated units are of patients on whom")
    with pytest.raises(DataError, match=r"48 of 60 evaluated units .* `trained_patients='leave-out'`"):
        comparison_table([run, used], draws=10)
    table = comparison_table([load_run(run.folder), used], draws=10, trained_patients="use")
    assert len(table.runs) == 2


def test_a_search_is_judged_by_patients_whom_the_encoder_never_saw(tuned_store):
    options = RetrievalOptions(k=3, draws=10)
    with pytest.raises(DataError, match="fine-tuned on the patients of 48 of 60 units"):
        evaluate_search(tuned_store, TASK, options)
    left_out = evaluate_search(tuned_store, TASK, options, trained_patients="leave-out")
    everybody = evaluate_search(tuned_store, TASK, options, trained_patients="use")
    assert [found.spaces[0].quality.queries for found in (left_out, everybody)] == [12, 60]


def test_a_list_that_is_missing_or_of_another_training_is_refused(tuned_store):
    path = tuned_store / "trained_patients.json"
    kept = path.read_text()
    path.unlink()
    with pytest.raises(DataError, match=r"lacks trained_patients\.json"):
        load_view(tuned_store, TASK)
    path.write_text(kept.replace('"salt":"', '"salt":"1'))
    with pytest.raises(DataError, match="must be the list of patients that the encoder was trained on"):
        load_view(tuned_store, TASK)
    path.write_text(kept)
    load_view(tuned_store, TASK)
