"""What a run says of the vectors of patients in it, and a run that has none."""

import dataclasses

import numpy as np
import pytest

import heads
from embedstore.errors import UsageError
from heads.runs.patient_vectors import vectors_in_words
from tests.views import make_view


@pytest.fixture(scope="module")
def view():
    return make_view(patients=60)


def test_a_run_says_whose_vectors_it_holds(view, tmp_path):
    run = heads.save_run(tmp_path / "run", heads.probe(view, heads.ProbeOptions(draws=5, folds=3)))
    bank = run.document["patient_vectors"]["bank"]
    assert bank == len(heads.load_run(tmp_path / "run").outliers.bank) > 0
    assert f"outliers.safetensors {bank}" in vectors_in_words(run.document)
    older = {name: entry for name, entry in run.document.items() if name != "patient_vectors"}
    assert vectors_in_words(older) == vectors_in_words(run.document)


def test_a_run_without_a_bank_holds_no_vector_and_says_that_evidence_is_absent(view, tmp_path):
    options = heads.ProbeOptions(draws=5, folds=3)
    with_bank = heads.save_run(tmp_path / "run", heads.probe(view, options))
    without = heads.save_run(tmp_path / "run", heads.probe(view, dataclasses.replace(options, bank=False)))
    assert not (tmp_path / "run" / "outliers.safetensors").exists()
    run = heads.load_run(tmp_path / "run")
    assert run.outliers is None
    assert vectors_in_words(without.document).startswith("holds no vector of a patient")
    (answer,) = heads.predict_units(run, view.X[:1], [0], ["one"])
    assert answer["ood_p_value"] is None
    assert np.array_equal(run.predict(view.X), with_bank.predict(view.X))


def test_vectors_of_phantoms_are_called_so():
    sources = [{"phantom": True}]
    document = {"outliers": {"bank_images": 7}, "sources": sources}
    assert vectors_in_words(document) == (
        "holds vectors of training images (outliers.safetensors 7), all of them phantoms"
    )


def test_a_head_that_is_made_of_vectors_cannot_do_without(view, tmp_path):
    with pytest.raises(UsageError, match=r"head='knn'` is made of the vectors that it learned from"):
        heads.probe(view, heads.ProbeOptions(head="knn", bank=False))
    run = heads.save_run(
        tmp_path / "run", heads.probe(view, heads.ProbeOptions(head="knn", draws=5, folds=3))
    )
    assert "head.safetensors all that it learned from" in vectors_in_words(run.document)
