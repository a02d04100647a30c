"""The order of classes that a table does not state."""

from __future__ import annotations

import math
from collections.abc import Iterable


def sort_classes(labels: set[str]) -> list[str]:
    """Sort as numbers where all labels are numbers (2 before 10), else as text."""
    if not are_numbers(labels):
        return sorted(labels)
    return sorted(labels, key=lambda label: (float(label), label))


def are_numbers(labels: Iterable[str]) -> bool:
    """Whether all labels are finite numbers."""
    try:
        return all(math.isfinite(float(label)) for label in labels)
    except ValueError:
        return False
