"""The logistic head keeps the contract that every head keeps; the others do so in their own tests."""

from __future__ import annotations

import pytest

from heads.estimators.logistic import LogisticFamily, LogisticHead
from tests.head_contract import check_chance, check_family, check_head

GRID = LogisticFamily(strengths=(0.01, 1.0))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_keeps_the_contract(n_classes: int) -> None:
    check_head(LogisticHead(C=0.3), n_classes=n_classes)
    check_family(GRID, LogisticHead, n_classes=n_classes)


def test_labels_without_signal_give_chance() -> None:
    check_chance(GRID, worse_by=0.05)
