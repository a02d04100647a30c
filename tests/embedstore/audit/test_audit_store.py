"""A collection in which every fault is planted once: what is found, and that nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedstore.audit.audit_store import AuditOptions, audit_store
from embedstore.audit.audited_rows import audited_rows
from embedstore.audit.findings import Audit
from embedstore.audit.near_copies import near_candidates
from embedstore.store.reader import Store, open_store
from tests.audited_store import PLANTED, make_audited_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(make_audited_store(tmp_path_factory.mktemp("audited")))


@pytest.fixture(scope="module")
def audit(store: Store) -> Audit:
    return audit_store(store, AuditOptions(workers=1))


def found(audit: Audit, kind: str) -> list[set[str]]:
    return [set(finding.image_ids) for finding in audit.of_kind(kind)]


def test_copies_are_found_by_pixels_and_nothing_else_is_one(audit: Audit) -> None:
    assert found(audit, "identical-pixels") == [{"i0.png", "copy.png"}]
    copies = {
        fault: number for fault, number in PLANTED.items() if fault in {"jpeg", "resized", "turned", "cut"}
    }
    expected = [
        {f"i{number}.png", f"{fault}.{'jpg' if fault == 'jpeg' else 'png'}"}
        for fault, number in copies.items()
    ]
    near = found(audit, "near-duplicates")
    assert all(pair in near for pair in expected)
    assert len(near) == len(expected)


def test_copies_and_patients_on_both_sides_of_the_split_are_leaks(audit: Audit) -> None:
    across = audit.of_kind("images-across-splits")
    assert {"i0.png", "copy.png"} in [set(finding.image_ids) for finding in across]
    (of_copy,) = [finding for finding in across if "copy.png" in finding.image_ids]
    # What is learned from is left out, and the evaluation stays what it was.
    assert of_copy.leave_out == ("i0.png",)
    (patient,) = audit.of_kind("patients-across-splits")
    assert set(patient.image_ids) == {"i16.png", "again.png"}
    assert patient.leave_out == ("i16.png",)
    assert {"i0.png", "copy.png"} in found(audit, "two-patients")


def test_each_picture_is_judged_against_its_kind(audit: Audit) -> None:
    assert found(audit, "blank") == [{"blank.png"}]
    assert found(audit, "inverted") == [{"negative.png"}]
    assert found(audit, "rotated") == [{"quarter.png"}]
    assert found(audit, "burned-in-text") == [{"text.png"}]
    assert found(audit, "another-cluster") == [{"stranger.png"}]
    assert audit.pictures == audit.images
    assert audit.notices == []


def test_the_thresholds_are_those_of_the_stores_own_distances(store: Store, audit: Audit) -> None:
    """The nearest of another patient by NumPy over all pairs, one of each pair of copies only."""
    rows = audited_rows(store)
    first = np.array([row for row, name in enumerate(rows.image_ids) if name != "copy.png"])
    vectors = rows.vectors[first].astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    vectors, first = vectors[lengths > 0], first[lengths > 0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    patients = np.array(rows.table.column("patient_id").to_pylist())[first]
    cosines[patients[:, None] == patients] = -1
    logs = np.log(1 - cosines.max(axis=1))
    below = np.exp(np.median(logs) - 3.29 * (np.median(logs) - np.quantile(logs, 0.16)))
    assert audit.thresholds["distance of a copy"] == pytest.approx(below, rel=1e-6)
    assert audit.thresholds["distance looked at"] == pytest.approx(np.exp(np.quantile(logs, 0.75)), rel=1e-6)


def test_without_pictures_vectors_decide_and_what_is_unseen_is_said(store: Store, tmp_path: Path) -> None:
    blind = audit_store(store, AuditOptions(pictures=False))
    assert blind.pictures == 0
    assert found(blind, "identical-pixels") == [{"i0.png", "copy.png"}]
    candidates = near_candidates(audited_rows(store))
    assert candidates is not None
    near = (candidates.distances <= candidates.below).sum()
    assert sum(len(pair) for pair in found(blind, "near-duplicates")) <= 2 * near
    assert not blind.of_kind("inverted")
    assert "likeness of a copy" not in blind.thresholds
