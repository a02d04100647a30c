"""What is to be reached: ``kappa>=0.75``, of all targets or of one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from embedstore.errors import UsageError
from heads.statistics.metrics import METRICS, Metric, metric

GRAMMAR = (
    "a goal is [TARGET:]METRIC OPERATOR NUMBER, as kappa>=0.75, log_loss<=0.4 or left:auroc>0.9; the operator is >=, "
    ">, <= or <"
)
_GOAL = re.compile(
    r"\s*(?:(?P<target>.*?)\s*:)?\s*(?P<metric>\w+)\s*(?P<operator>[<>]=?)\s*(?P<number>\S+)\s*"
)
_OPERATORS = {"larger": (">=", ">"), "smaller": ("<=", "<")}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A limit that a metric is to reach.

    Parameters
    ----------
    metric
        Name of `heads.statistics.metrics.METRICS`.
    operator
        ``>=``, ``>``, ``<=`` or ``<``.
    number
        The limit.
    target
        The target that is meant; None for the mean over all.
    """

    metric: str
    operator: str
    number: float
    target: str | None = None

    @property
    def row(self) -> Metric:
        """Its metric."""
        return METRICS[self.metric]

    @property
    def sign(self) -> float:
        """1 where larger values are better, else -1."""
        return 1.0 if self.operator.startswith(">") else -1.0

    def is_met(self, value: float) -> bool:
        """Whether a value reaches it; NaN does not."""
        away = self.sign * (value - self.number)
        return away >= 0 if self.operator.endswith("=") else away > 0

    def better_by(self, value: float, gain: float) -> float:
        """Return a value that is better by `gain`."""
        return value + self.sign * gain

    def __str__(self) -> str:
        return (
            f"{'' if self.target is None else f'{self.target}:'}{self.metric}{self.operator}{self.number:g}"
        )


def parse_goal(text: str) -> Goal:
    """Read a goal.

    Raises
    ------
    UsageError
        If it is none, names no metric, asks for worse values, or for one that the metric does not have.

    Examples
    --------
    >>> parse_goal("kappa >= 0.75")
    Goal(metric='kappa', operator='>=', number=0.75, target=None)
    """
    found = _GOAL.fullmatch(text)
    if found is None:
        raise UsageError(f"`goal` cannot be read: found {text!r}; {GRAMMAR}")
    try:
        number = float(found["number"])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"`goal` {text!r}: {found['number']!r} is no number; {GRAMMAR}")
    try:
        row = metric(found["metric"])
    except UsageError as error:
        raise UsageError(f"`goal` {text!r}: {error}; {GRAMMAR}") from error
    _require_direction(text, row, found["operator"], number)
    return Goal(metric=row.name, operator=found["operator"], number=number, target=found["target"])


def _require_direction(text: str, row: Metric, operator: str, number: float) -> None:
    if row.better not in _OPERATORS:
        raise UsageError(
            f"`goal` {text!r}: {row.name} is best {row.better.replace('nearer', 'near')}, on neither side of a limit; "
            "name a metric that is better when larger or when smaller, as ece<=0.05"
        )
    if operator not in _OPERATORS[row.better]:
        fitting = _OPERATORS[row.better][0]
        raise UsageError(
            f"`goal` {text!r}: {row.name} is better when {row.better}; write {row.name}{fitting}{number:g}"
        )
    beyond = operator in ("<", ">") and number == (1 if row.better == "larger" else 0)
    if beyond:
        raise UsageError(f"`goal` {text!r}: no {row.name} lies beyond {number:g}")
    if row.better == "larger" and number > 1:
        raise UsageError(
            f"`goal` {text!r}: {row.name} is 1 at most; found {number:g}"
            + (f": {number:g} % is {number / 100:g}" if 2 <= number <= 100 else "")
        )
    if row.better == "smaller" and number < 0:
        raise UsageError(f"`goal` {text!r}: {row.name} is 0 at least; found {number:g}")
