"""Limits of a rate where every unit was right, or none: the rule of three, by patient."""

from __future__ import annotations


def rule_of_three(rate: float, patients: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the limits of a rate of 0 or 1.

    A rate of p is right in all of n patients with the chance p^n, which is below 1 - `level` for every p below
    (1 - `level`)^(1/n): at 95 % about 1 - 3/n (Hanley & Lippman-Hand 1983, doi 10.1001/jama.1983.03330370053031). Units
    of a patient may all be alike, so patients are counted and not units. The same holds for an AUROC of 1: disjoint
    pairs of a positive and a negative patient are independent, as many as the rarer class has patients.

    Parameters
    ----------
    rate
        0 or 1.
    patients
        Patients that it stands on, 1 or more.
    level
        Coverage that the interval aims at.

    Examples
    --------
    >>> [round(limit, 3) for limit in rule_of_three(1.0, 100)]
    [0.97, 1.0]
    """
    reach = float((1 - level) ** (1 / patients))
    return (reach, 1.0) if rate > 0.5 else (0.0, 1 - reach)
