"""The 25 targets of the RSNA 2024 Lumbar Spine competition: five conditions at five disc levels."""

from __future__ import annotations

# The task of all 25 targets; releases before 0.2 called it "stenosis", and a store that holds it so keeps the name.
SEVERITY = "lumbar-severity"
CONDITIONS = (
    "spinal_canal_stenosis",
    "left_neural_foraminal_narrowing",
    "right_neural_foraminal_narrowing",
    "left_subarticular_stenosis",
    "right_subarticular_stenosis",
)
LEVELS = ("l1_l2", "l2_l3", "l3_l4", "l4_l5", "l5_s1")
TARGETS = tuple(f"{condition}_{level}" for condition in CONDITIONS for level in LEVELS)
CLASSES = ("Normal/Mild", "Moderate", "Severe")
CLASS_WEIGHTS = (1.0, 2.0, 4.0)  # the competition's weights by true class
# Both sides of a condition are scored as one.
SCORED_CONDITIONS = ("spinal", "foraminal", "subarticular")


def scored_condition(target: str) -> str:
    """Return which of `SCORED_CONDITIONS` a target of `TARGETS` counts in.

    Examples
    --------
    >>> scored_condition("left_neural_foraminal_narrowing_l4_l5")
    'foraminal'
    """
    (found,) = (name for name in SCORED_CONDITIONS if name in target)
    return found
