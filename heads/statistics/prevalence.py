"""Probabilities for a place where the classes are rarer or commoner than where the head learned.

If only the prevalence differs, and a sick wrist looks the same in both places (label shift), probabilities are
carried over by the ratio of prevalences, and the new prevalence can be estimated from unlabelled cases by
expectation maximisation (Saerens, Latinne & Decaestecker 2002, doi 10.1162/089976602753284446). It wants
calibrated probabilities (Alexandari, Kundaje & Shrikumar 2020, ICML, arXiv 1901.06852), which these are.
Whether only the prevalence differs cannot be seen from the cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.scores import Floats

EM = "em"
# Even a head that is never wrong states a prevalence from 50 cases only to within +-14 points.
EM_UNITS = 50
_EM_STEPS = 10_000
_EM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Prevalence:
    """What share of each class predictions assume.

    Parameters
    ----------
    learned
        (n_classes,) shares among the units learned from.
    assumed
        (n_classes,) shares that the probabilities are carried over to.
    source
        ``training``, ``given`` or ``em``.
    units
        Units that it was estimated from; 0 unless the source is ``em``.
    """

    learned: tuple[float, ...]
    assumed: tuple[float, ...]
    source: str
    units: int = 0

    def apply(self, probabilities: Floats) -> Floats:
        """Return (n, n_classes) probabilities for the assumed shares; the bits stay where nothing differs."""
        if self.assumed == self.learned:
            return probabilities
        return shift_prevalence(probabilities, self.learned, self.assumed)

    def apply_to_threshold(self, threshold: float) -> float:
        """Return the threshold of two classes that decides every case as `threshold` did before."""
        return float(self.apply(np.array([[1 - threshold, threshold]]))[0, 1])

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return plain JSON values."""
        document: dict[str, Any] = {
            "source": self.source,
            "assumed": dict(zip(classes, self.assumed, strict=True)),
        }
        if self.assumed != self.learned:
            document["training"] = dict(zip(classes, self.learned, strict=True))
        return document | ({"units": self.units} if self.source == EM else {})


def shift_prevalence(probabilities: Floats, learned: Sequence[float], assumed: Sequence[float]) -> Floats:
    """Carry probabilities from one prevalence to another.

    Parameters
    ----------
    probabilities
        (n, n_classes) calibrated for `learned`.
    learned, assumed
        (n_classes,) shares of the classes; `learned` above 0.

    Returns
    -------
    ndarray
        (n, n_classes) float64; rows sum to 1 and depend on nothing but themselves.

    Examples
    --------
    >>> shift_prevalence(np.array([[0.5, 0.5]]), (0.5, 0.5), (0.9, 0.1)).tolist()
    [[0.9, 0.1]]
    """
    weighed = np.asarray(probabilities, np.float64) * (np.asarray(assumed) / np.asarray(learned))
    # Summed class by class: the order of a library's reduction may depend on the shape.
    total = weighed[:, :1].copy()
    for k in range(1, weighed.shape[1]):
        total += weighed[:, k : k + 1]
    return np.asarray(weighed / total, np.float64)


def estimate_prevalence(probabilities: Floats, learned: Sequence[float]) -> tuple[float, ...]:
    """Estimate the shares of the classes among unlabelled cases.

    Parameters
    ----------
    probabilities
        (n, n_classes) calibrated for `learned`.
    learned
        (n_classes,) shares among the units learned from.

    Raises
    ------
    UsageError
        If there are fewer than `EM_UNITS` cases.
    """
    if len(probabilities) < EM_UNITS:
        raise UsageError(
            f"`prevalence='em'` needs {EM_UNITS} or more units to estimate a prevalence; found "
            f"{len(probabilities)}: give the prevalence as a number"
        )
    shares = np.asarray(learned, np.float64)
    for _ in range(_EM_STEPS):
        expected = shift_prevalence(probabilities, learned, shares.tolist()).mean(0)
        moved = float(np.abs(expected - shares).max())
        shares = expected / expected.sum()
        if moved < _EM_TOLERANCE:
            break
    return tuple(float(share) for share in shares)


def prevalence_of(wanted: str | None, probabilities: Floats, learned: Sequence[float]) -> Prevalence:
    """Turn what a user asked for into shares.

    Parameters
    ----------
    wanted
        None for that of training, ``em``, a number for the second of two classes, or one number per class with
        commas between; ``5%`` is 0.05.
    probabilities
        (n, n_classes) of the units to predict, for ``em``.
    learned
        (n_classes,) shares among the units learned from.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    own = tuple(learned)
    if wanted is None:
        return Prevalence(own, own, "training")
    if wanted == EM:
        return Prevalence(own, estimate_prevalence(probabilities, own), EM, len(probabilities))
    try:
        shares = tuple(map(_share, wanted.split(",")))
    except ValueError:
        shares = ()
    if len(shares) == 1 and len(own) == 2:
        shares = (1 - shares[0], shares[0])
    if len(shares) != len(own) or not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        form = (
            "a number above 0 and below 1, or a percentage"
            if len(own) == 2
            else f"{len(own)} numbers that sum to 1"
        )
        raise UsageError(f"`prevalence` must be {form}, or em; found {wanted!r}")
    return Prevalence(own, shares, "given")


def _share(text: str) -> float:
    number, percent, rest = text.partition("%")
    if rest.strip():
        raise ValueError(text)
    return float(number) / 100 if percent else float(number)


def shares_outside(
    folds: npt.NDArray[np.int64],
    learned: npt.NDArray[np.int64],
    learned_folds: npt.NDArray[np.int64],
    n_classes: int,
) -> Floats:
    """Return (n_units, targets, n_classes) shares of the classes among the labels of the folds that are not a unit's.

    In cross-validation these are the labels outside the unit's own fold, as for the head itself.

    Parameters
    ----------
    folds
        (n_units,) int64: the fold of each unit; one that no label has is outside of all.
    learned
        (m, targets) int64 labels, `MISSING` where there is none.
    learned_folds
        (m,) int64.
    n_classes
        Number of classes.
    """
    shares = np.empty((len(folds), learned.shape[1], n_classes))
    for left in np.unique(folds):
        outside = learned[learned_folds != left]
        counts = np.stack([(outside == k).sum(axis=0) for k in range(n_classes)], axis=1)
        shares[folds == left] = counts / counts.sum(axis=1, keepdims=True)
    return shares
