"""How tokens are drawn: as a softmax says, and by each row's own seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedstore.generation.token_choice import DrawByStudy, StopWhenAsked, seed_of_study

IDS = torch.zeros((2, 1), dtype=torch.long)


def test_draws_are_distributed_as_the_softmax_of_scores_by_temperature() -> None:
    scores = torch.tensor([[1.0, 0.0, -1.0]]).repeat(4000, 1)
    drawn = DrawByStudy(2.0, range(4000))(torch.zeros((4000, 1)), scores).argmax(dim=1)
    expected = np.exp([0.5, 0.0, -0.5]) / np.exp([0.5, 0.0, -0.5]).sum()
    # Five standard errors of a share at 4,000 draws.
    assert np.bincount(drawn.numpy(), minlength=3) / 4000 == pytest.approx(expected, abs=5 * 0.5 / 4000**0.5)


def test_a_row_is_drawn_alike_in_any_company() -> None:
    scores = torch.randn((2, 50), generator=torch.Generator().manual_seed(0))
    both, alone = DrawByStudy(1.0, [3, 4]), DrawByStudy(1.0, [4])
    for _ in range(3):
        assert torch.equal(both(IDS, scores)[1], alone(IDS[1:], scores[1:])[0])


def test_seeds_differ_by_run_and_study_and_stay() -> None:
    seeds = {seed_of_study(seed, study) for seed in (0, 1) for study in ("1", "11")}
    assert len(seeds) == 4
    assert seed_of_study(0, "4003253") == seed_of_study(0, "4003253")


def test_all_rows_end_once_somebody_asks() -> None:
    asked = [False]
    criterion = StopWhenAsked(lambda: asked[0])
    assert criterion(IDS, IDS).tolist() == [False, False]
    asked[0] = True
    assert criterion(IDS, IDS).tolist() == [True, True]
