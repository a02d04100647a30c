"""The competition's score, exactly: weighted log losses of three conditions and of "any severe" in the spinal canal.

RSNA 2024 Lumbar Spine Degenerative Classification, page "Evaluation": each log loss weighs a cell by its true class
(`CLASS_WEIGHTS`: 1, 2, 4), both sides of a condition are one, and a study's canal is severe if one of its levels is,
said with the largest severe probability of these levels; the score is the plain mean of the four. Cells without a label
have no part, also in the last of them.

The weight depends on the true class, so the best answer is not the probability p but q in proportion to (1, 2, 4) * p:
in expectation over p, sum(w * p * -log(q)) is smallest there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASS_WEIGHTS, CLASSES, SCORED_CONDITIONS, TARGETS, scored_condition
from embedstore.view import MISSING
from heads.scores import Floats
from heads.statistics.bootstrap import DRAWS, Draws, Estimate, draw_patients, ratio, weighted_sums
from heads.statistics.evaluation import Drawn, Scored

SCORE = "rsna_score"
AS_GIVEN = "rsna_score_as_given"
ANY_SEVERE = "any_severe_spinal"
PARTS = (*SCORED_CONDITIONS, ANY_SEVERE)
# Of a run: the score of its probabilities times (1, 2, 4) with its parts, and that of its probabilities as they are.
RUN_SCORES = (SCORE, *(f"rsna_{part}" for part in PARTS), AS_GIVEN)
# What pages call them.
SCORE_LABELS = {
    SCORE: "RSNA score",
    "rsna_spinal": "spinal canal",
    "rsna_foraminal": "foraminal",
    "rsna_subarticular": "subarticular",
    "rsna_any_severe_spinal": "any severe canal",
    AS_GIVEN: "RSNA score without (1, 2, 4)",
}
# scikit-learn's `log_loss`, by which the competition scores, cuts probabilities there.
_FLOOR = float(np.finfo(np.float64).eps)
_SPINAL, _SEVERE = "spinal", CLASSES.index("Severe")


def for_rsna_score(probabilities: npt.ArrayLike) -> Floats:
    """Return what to submit for calibrated probabilities: (1, 2, 4) times them, each row summing to 1 again.

    Parameters
    ----------
    probabilities
        (..., 3) in the order of the classes: normal or mild, moderate, severe.

    Examples
    --------
    >>> heads.for_rsna_score([0.6, 0.2, 0.2]).round(3).tolist()
    [0.333, 0.222, 0.444]
    """
    weighted = np.asarray(probabilities, np.float64) * CLASS_WEIGHTS
    return np.asarray(weighted / weighted.sum(axis=-1, keepdims=True), np.float64)


def from_rsna_score(submitted: npt.ArrayLike) -> Floats:
    """Return the probabilities behind what was made for the score: the inverse of `for_rsna_score`.

    Examples
    --------
    >>> heads.from_rsna_score(heads.for_rsna_score([0.6, 0.2, 0.2])).round(3).tolist()
    [0.6, 0.2, 0.2]
    """
    plain = np.asarray(submitted, np.float64) / CLASS_WEIGHTS
    return np.asarray(plain / plain.sum(axis=-1, keepdims=True), np.float64)


def rsna_score(
    y: npt.ArrayLike,
    submitted: npt.ArrayLike,
    *,
    targets: Sequence[str] = TARGETS,
    patients: npt.ArrayLike | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return the competition's score of what would be submitted, its four parts, and 95 % intervals.

    Parameters
    ----------
    y
        (n_studies, targets) int: 0, 1, 2, or -1 where there is no label.
    submitted
        (n_studies, targets, 3), each row summing to 1: probabilities as they are, or `for_rsna_score` of them.
    targets
        Names of the columns of `y`, all of the competition's in any order.
    patients
        (n_studies,) str; every study is another patient by default, as the competition takes it.
    draws, seed
        Of the bootstrap.

    Returns
    -------
    dict
        ``rsna_score``, ``spinal``, ``foraminal``, ``subarticular`` and ``any_severe_spinal``; smaller is better. NaN
        where a part has no label.

    Raises
    ------
    UsageError
        If shapes do not agree, a label is none of these, a row is no distribution, or a target is missing.

    Examples
    --------
    >>> y = np.zeros((2, 25), int)
    >>> y[1] = 2
    >>> prior = np.tile([0.7, 0.2, 0.1], (2, 25, 1))
    >>> round(heads.rsna_score(y, heads.for_rsna_score(prior), draws=50)["rsna_score"].value, 3)
    1.187
    """
    truth, said = np.asarray(y), np.asarray(submitted, np.float64)
    if truth.ndim != 2 or said.shape != (*truth.shape, len(CLASSES)):
        raise UsageError(
            "y must have shape (studies, targets) and submitted one row of 3 classes for each; found shapes "
            f"{truth.shape} and {said.shape}"
        )
    if truth.dtype.kind not in "iu" or not np.isin(truth, (MISSING, 0, 1, 2)).all():
        raise UsageError(f"y must hold 0, 1, 2 and -1 for no label; found {np.unique(truth).tolist()[:5]}")
    known = said[truth != MISSING]
    if not (np.isfinite(known).all() and (known >= 0).all() and np.allclose(known.sum(axis=1), 1, atol=1e-6)):
        raise UsageError("each row of submitted with a label must hold 3 probabilities that sum to 1")
    who = np.arange(len(truth)).astype(str) if patients is None else np.asarray(patients, np.str_)
    if who.shape != truth.shape[:1]:
        raise UsageError(f"patients must name the patient of each of {len(truth)} studies; found {len(who)}")
    drawn = draw_rsna_score(truth.astype(np.int64), said, draw_patients(who, draws=draws, seed=seed), targets)
    return {name: entry.estimate() for name, entry in drawn.items()}


def draw_rsna_score(
    y: npt.NDArray[np.int64], submitted: Floats, draws: Draws, targets: Sequence[str] = TARGETS
) -> dict[str, Drawn]:
    """Return the score and its parts, on all studies and in each draw; arguments as `rsna_score`."""
    require_all_targets(targets)
    weights = draws.weights()
    by_part = {
        part: _any_severe(y, submitted, targets)
        if part == ANY_SEVERE
        else _of_condition(y, submitted, targets, part)
        for part in PARTS
    }
    drawn: dict[str, Drawn] = {}
    for part, (columns, n) in by_part.items():
        of_all, of_draws = (weighted_sums(columns, rows) for rows in (None, weights))
        drawn[part] = Drawn(
            float(ratio(of_all[:, 0], of_all[:, 1])[0]), ratio(of_draws[:, 0], of_draws[:, 1]), n
        )
    parts = [drawn[part] for part in PARTS]
    score = Drawn(
        float(np.mean([entry.value for entry in parts])),
        np.asarray(np.mean([entry.drawn for entry in parts], axis=0), np.float64),
        int((y != MISSING).sum()),
    )
    return {SCORE: score, **drawn}


def draw_run_score(scored: Scored, targets: Sequence[str]) -> dict[str, Drawn]:
    """Return `RUN_SCORES` of the calibrated probabilities of a run, on all studies and in each draw."""
    corrected = draw_rsna_score(scored.y, for_rsna_score(scored.probabilities), scored.draws, targets)
    as_given = draw_rsna_score(scored.y, scored.probabilities, scored.draws, targets)
    return dict(zip(RUN_SCORES, (*corrected.values(), as_given[SCORE]), strict=True))


def is_of_the_competition(targets: Sequence[str], classes: Sequence[str]) -> bool:
    """Whether a task is the competition's: all of its targets and its classes."""
    return set(targets) == set(TARGETS) and tuple(classes) == CLASSES


def require_all_targets(targets: Sequence[str]) -> None:
    """Refuse targets that are not the competition's 25; raises UsageError with those that are missing or unknown."""
    missing = [target for target in TARGETS if target not in targets]
    unknown = [target for target in targets if target not in TARGETS]
    if missing or unknown or len(targets) != len(TARGETS):
        found = [f"no {missing[0]!r}"] if missing else []
        found += [f"{unknown[0]!r}, which is none"] if unknown else []
        raise UsageError(
            f"targets must be the competition's {len(TARGETS)}, each once; found {len(targets)}"
            + "".join(f", {words}" for words in found)
        )


def _of_condition(
    y: npt.NDArray[np.int64], submitted: Floats, targets: Sequence[str], condition: str
) -> tuple[Floats, int]:
    """Return (n_studies, 2): each study's weighted losses and weights in a condition; and the number of its labels."""
    columns = [at for at, target in enumerate(targets) if scored_condition(target) == condition]
    labelled = y[:, columns] != MISSING
    truth = np.where(labelled, y[:, columns], 0)
    of_truth = np.take_along_axis(submitted[:, columns], truth[..., None], axis=2)[..., 0]
    weights = np.where(labelled, np.asarray(CLASS_WEIGHTS)[truth], 0.0)
    losses = np.where(labelled, -np.log(_cut(of_truth)), 0.0)
    return np.stack([(weights * losses).sum(1), weights.sum(1)], axis=1), int(labelled.sum())


def _any_severe(y: npt.NDArray[np.int64], submitted: Floats, targets: Sequence[str]) -> tuple[Floats, int]:
    """Return what `_of_condition` does, of studies in which one level is severe or none is."""
    columns = [at for at, target in enumerate(targets) if scored_condition(target) == _SPINAL]
    labelled = y[:, columns] != MISSING
    worst = np.where(labelled, y[:, columns], 0).max(axis=1)
    said = np.where(labelled, submitted[:, columns, _SEVERE], 0.0).max(axis=1)
    weights = np.where(labelled.any(axis=1), np.asarray(CLASS_WEIGHTS)[worst], 0.0)
    losses = -np.log(_cut(np.where(worst == _SEVERE, said, 1 - said)))
    return np.stack([weights * losses, weights], axis=1), int(labelled.any(axis=1).sum())


def _cut(probabilities: Floats) -> Floats:
    return np.asarray(np.clip(probabilities, _FLOOR, 1 - _FLOOR), np.float64)
