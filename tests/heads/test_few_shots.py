"""A few cases to learn from: how many, whose, of which classes, and the same ones whatever else is in the store."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedstore.errors import DataError
from embedstore.view import View
from heads.few_shots import DRAWN, NOT_DRAWN, few_shots
from heads.inputs.leakage import leakage_groups
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from tests.views import make_view


def drawn(view: View, shots: int = 24, seed: int = 0) -> View:
    return few_shots(view, shots, groups=leakage_groups(view), seed=seed)


def learned(view: View) -> set[str]:
    return set(view.unit_ids[np.isin(view.splits, ["train", DRAWN])].tolist())


def in_another_order(view: View) -> View:
    order = np.random.default_rng(5).permutation(len(view.unit_ids))
    rank = np.argsort(order)
    return replace(
        view,
        unit_of_image=rank[view.unit_of_image],
        unit_ids=view.unit_ids[order],
        y=view.y[order],
        patients=view.patients[order],
        splits=view.splits[order],
        subgroups={},
    )


@pytest.mark.parametrize("share", [0.3, 0.0])
def test_the_cases_are_one_of_each_patient_and_the_same_in_any_order(share: float) -> None:
    view = make_view(valid_share=share)
    found = drawn(view)
    chosen = np.isin(found.unit_ids, list(learned(found)))
    assert chosen.sum() == len(np.unique(view.patients[chosen])) == 24
    assert learned(drawn(in_another_order(view))) == learned(found)
    assert learned(drawn(view, seed=1)) != learned(found)
    assert learned(drawn(found)) == learned(found)  # drawing again changes nothing


def test_an_official_evaluation_set_stays_and_all_others_have_no_part() -> None:
    view = make_view()
    found = drawn(view)
    np.testing.assert_array_equal(found.splits == "valid", view.splits == "valid")
    assert set(view.splits[found.splits == "train"]) == {"train"}


def test_without_a_split_everybody_who_shares_nothing_with_the_drawn_is_evaluated() -> None:
    view = make_view(valid_share=0.0)
    chosen = learned(drawn(view))
    row = int(np.flatnonzero(view.unit_ids == min(chosen))[0])
    stranger = int(
        np.flatnonzero(~np.isin(view.patients, view.patients[np.isin(view.unit_ids, sorted(chosen))]))[0]
    )
    # The same pixels under two patients.
    content = view.content_sha256.copy()
    content[np.flatnonzero(view.unit_of_image == stranger)[0]] = content[
        np.flatnonzero(view.unit_of_image == row)[0]
    ]
    twins = replace(view, content_sha256=content)
    found = drawn(twins)
    groups = leakage_groups(twins)
    assert not set(groups[found.splits == DRAWN]) & set(groups[found.splits == NOT_DRAWN])
    assert set(groups[found.splits == NOT_DRAWN]) | set(groups[found.splits == DRAWN]) == set(groups)


def test_classes_have_their_share_by_the_largest_remainder() -> None:
    # 10 patients of one study each: 6 normal, 4 abnormal; of 4 cases 2.4 and 1.6, so 2 and 2.
    view = make_view(patients=10, valid_share=0.0)
    _, first = np.unique(view.patients, return_index=True)
    y = np.zeros((len(view.unit_ids), 1), np.int64)
    y[np.isin(view.patients, view.patients[first][6:])] = 1
    found = drawn(replace(view, y=y), shots=4)
    assert sorted(y[found.splits == DRAWN, 0].tolist()) == [0, 0, 1, 1]


def test_too_few_patients_are_refused_with_their_number() -> None:
    view = make_view(patients=30, valid_share=0.0)
    with pytest.raises(
        DataError, match=r"`shots=48` needs as many patients .*one more to be evaluated on; found 30"
    ):
        drawn(view, shots=48)


def test_a_probe_learns_from_them_alone() -> None:
    result = probe(make_view(patients=160), ProbeOptions(shots=48, draws=20))
    assert len(result.out_of_fold.unit_ids) == 48
    assert result.settings.to_json()["shots"] == 48
    assert result.settings.mode == "official split"
    assert result.excluded["training unit that was not drawn"] > 0
    assert "unit outside the official split" not in result.excluded


def test_without_a_split_no_split_is_said_to_be_official() -> None:
    view = make_view(patients=160, valid_share=0.0)
    result = probe(view, ProbeOptions(shots=48, draws=20))
    assert (result.settings.mode, result.settings.evaluation_split) == ("few shots", NOT_DRAWN)
    others = ~np.isin(view.patients, view.patients[np.isin(view.unit_ids, result.out_of_fold.unit_ids)])
    assert sorted(result.evaluated.unit_ids) == sorted(view.unit_ids[others])
    further = result.excluded["further unit of a patient who was drawn"]
    assert further == len(view.unit_ids) - 48 - others.sum() > 0
