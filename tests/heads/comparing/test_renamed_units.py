"""Runs of stores with other keys: units and patients by their images, and where images cannot tell."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import UsageError
from heads.comparing.matched_units import match_units
from heads.comparing.renamed_units import by_content
from heads.runs.run import Run
from tests.heads.comparing.encoder_runs import changed

NAMES = ["sharp, logistic", "blurred, logistic"]


def keyed(name: str) -> str:
    """Return what another key makes of an id."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def cells(run: Run, column: str, change) -> Run:
    """Return a copy of a run with other cells in its table of units."""
    assert run.units is not None
    found = pa.array([change(row) for row in run.units.to_pylist()], pa.string())
    position = run.units.column_names.index(column)
    return replace(run, units=run.units.set_column(position, column, found))


def with_key(run: Run) -> Run:
    """Return a run as a store with another key would have given it."""
    run = changed(run, "unit_id", lambda row: keyed(row["unit_id"]))
    run = changed(run, "patient_id", lambda row: keyed(row["patient_id"]))
    return cells(run, "unit_id", lambda row: keyed(row["unit_id"]))


def test_stores_with_other_keys_are_compared_as_if_they_had_one(sharp: Run, blurred: Run) -> None:
    expected = match_units([sharp, blurred], NAMES)
    found = match_units([sharp, with_key(blurred)], NAMES)
    assert found.unit_ids.tolist() == expected.unit_ids.tolist()
    assert found.patients.tolist() == expected.patients.tolist()
    assert np.array_equal(found.y, expected.y)
    for one, other in zip(found.probabilities, expected.probabilities, strict=True):
        assert np.array_equal(one, other)
    assert found.notes == (
        "blurred, logistic: no id is one of sharp, logistic; units are matched by their images",
    )


def test_ids_in_common_are_believed(sharp: Run, blurred: Run) -> None:
    assert by_content(blurred, sharp) is None
    assert by_content(replace(with_key(blurred), units=None), sharp) is None


def test_copies_of_one_image_are_not_told_apart(sharp: Run, blurred: Run) -> None:
    one, other = (str(unit) for unit in sharp.evaluated.unit_ids[:2])

    def copied(row):
        return "copy" if row["unit_id"] in {one, other} else row["content_sha256"]

    found = match_units(
        [cells(sharp, "content_sha256", copied), with_key(cells(blurred, "content_sha256", copied))], NAMES
    )
    assert not {one, other} & set(found.unit_ids.tolist())
    assert len(found.unit_ids) == len(sharp.evaluated.unit_ids) - 2
    unknown = with_key(cells(blurred, "content_sha256", lambda row: None))
    with pytest.raises(UsageError, match="found none in"):
        match_units([sharp, unknown], NAMES)


def test_patients_that_are_not_one_to_one_are_refused(sharp: Run, blurred: Run) -> None:
    patients = sharp.evaluated.patients
    first, second = np.unique(patients)[:2].tolist()
    merged = changed(
        blurred, "patient_id", lambda row: first if row["patient_id"] == second else row["patient_id"]
    )
    with pytest.raises(UsageError, match="same patient in every run"):
        match_units([sharp, with_key(merged)], NAMES)
