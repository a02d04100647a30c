"""Predictions as plain JSON values: probabilities, decision, conformal set, strangeness, and what made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.inputs.metadata import Cells
from heads.inputs.pooling import unit_numbers
from heads.runs.run import Run
from heads.scores import Floats
from heads.statistics.conformal import UNKNOWN
from heads.statistics.prevalence import Prevalence, prevalence_of
from heads.statistics.thresholds import HALF, at_least, gravest_reached

# Of a test by Simes (1986, doi 10.1093/biomet/73.3.751) that joins the p values of all methods.
UNLIKE_LEVEL = 0.05
# Images of a unit that are named for the weight that they have: a stack has hundreds.
HEAVIEST = 10
NOTICE = "Research software, not a medical device."


def predict_units(
    run: Run,
    X: npt.ArrayLike,
    unit_of_image: npt.ArrayLike,
    unit_ids: Sequence[str],
    *,
    threshold: str = "half",
    prevalence: str | None = None,
    metadata: Cells | None = None,
    content_sha256: npt.NDArray[np.uint8] | None = None,
    image_of_target: npt.NDArray[np.bool_] | None = None,
    image_ids: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Predict every unit.

    Parameters
    ----------
    run
        A loaded run; the caller has checked the identity (`Run.require_identity`).
    X
        (n_images, dim), finite; read as float32.
    unit_of_image
        (n_images,) int: row in `unit_ids`; every unit has at least one image.
    unit_ids
        Names of the units.
    threshold
        Rule of the decision between two classes, or about each grade and all graver ones: one that the run holds, or a
        number between 0 and 1. Of grades, ``half`` decides for the likeliest class, and another rule for the gravest
        grade that reaches its threshold. The
        run's own rules keep their sensitivity and specificity when the prevalence is another; ``half`` and
        numbers are thresholds of the probability that is stated.
    prevalence
        As `heads.statistics.prevalence.prevalence_of`; that of training by default. With ``em`` the probabilities of a
        unit depend on the other units of the call.
    metadata, image_of_target
        As `heads.runs.run.Run.predict`.
    content_sha256
        (n_images, 32) uint8 digests of the decoded pixels, by which images are known again under another name.
    image_ids
        (n_images,) what images are called in ``image_weights``; by default their row in `X`.

    Returns
    -------
    list of dict
        Per unit: ``unit_id``, ``images``, ``learned_from`` (whether the run learned from a unit of this id, or from
        one of its images: what it says of that one is no evidence), ``targets`` (target -> ``probabilities`` by
        class, ``decision``, with two classes ``threshold``, of grades at a rule ``at_least``: grade -> ``probability``
        of it or a graver one, its ``threshold`` and whether it is ``reached``, ``conformal_set`` or None where the run
        refused it, and ``prevalence``; all but the last None where the unit has no image for the target; from a head
        that does not hear all images alike also ``image_weights``, the `HEAVIEST` images with their ``weight`` in the
        answer, which sums to 1 over all images of the unit),
        ``conformal_coverage``, ``ood_p_value`` by method, None in a run without a bank, ``unlike_training``
        (`is_unlike`, None without a bank), ``run_id`` and ``notice``; where the heads get metadata also ``metadata``:
        column -> the different values of the unit's images, and where some of them were not among the images that the
        heads were fitted on, ``metadata_unseen``: column -> those, each of which counts as none of the column's
        values. Conformal sets hold class by class and so whatever the prevalence: they do not move with it.

    Raises
    ------
    UsageError
        If the run has no such threshold, the prevalence is none, or metadata is missing.

    Examples
    --------
    >>> answers = heads.predict_units(run, store.embeddings().vectors[:2], [0, 1], ["first", "second"])
    >>> [answer["unit_id"] for answer in answers]
    ['first', 'second']
    >>> sorted(answers[0]["targets"]["abnormal"]["probabilities"])
    ['abnormal', 'normal']
    """
    vectors, owners = np.asarray(X, np.float32), unit_numbers(unit_of_image)
    probabilities = run.predict(
        vectors, owners, n_units=len(unit_ids), metadata=metadata, image_of_target=image_of_target
    )
    learned_from = _learned_from(run, owners, unit_ids, content_sha256)
    images = np.bincount(owners, minlength=len(unit_ids))
    seen = _images_that_count(image_of_target, owners, len(unit_ids))
    outliers = run.outliers
    strangeness = outliers.p_values(vectors[seen], owners[seen], n_units=len(unit_ids)) if outliers else None
    stated = _metadata(run, metadata, owners, len(unit_ids))
    weights = run.predictor.image_weights(vectors, owners, metadata=metadata, image_of_target=image_of_target)
    names = list(range(len(vectors))) if image_ids is None else list(image_ids)
    answers = [
        _with_heaviest(
            _answers(run, index, probabilities[:, index], threshold, prevalence),
            weights[index],
            owners,
            names,
        )
        for index in range(len(run.targets))
    ]
    return [
        {
            "unit_id": unit_id,
            "images": int(images[row]),
            "learned_from": bool(learned_from[row]),
            "targets": {
                target: of_target[row] for target, of_target in zip(run.targets, answers, strict=True)
            },
            **(_with_unseen(run, stated[row]) if stated else {}),
            "conformal_coverage": run.conformal[0].coverage,
            "ood_p_value": None
            if strangeness is None
            else {method: float(p_values[row]) for method, p_values in strangeness.items()},
            "unlike_training": None
            if strangeness is None
            else is_unlike([float(p_values[row]) for p_values in strangeness.values()]),
            "run_id": run.run_id,
            "notice": NOTICE,
        }
        for row, unit_id in enumerate(unit_ids)
    ]


def is_unlike(p_values: Sequence[float]) -> bool:
    """Return whether a unit is unlike those learned from: about one in twenty that are like them is called so.

    Examples
    --------
    >>> is_unlike([0.04, 0.04]), is_unlike([0.04, 0.9]), is_unlike([0.02, 0.9])
    (True, False, True)
    """
    ordered = sorted(p_values)
    return any(p <= UNLIKE_LEVEL * (rank + 1) / len(ordered) for rank, p in enumerate(ordered))


def _images_that_count(
    image_of_target: npt.NDArray[np.bool_] | None, unit_of_image: npt.NDArray[np.int64], n_units: int
) -> npt.NDArray[np.bool_]:
    """Return (n_images,) the images that speak for a target, as those learned from do; all of a unit that has none."""
    if image_of_target is None:
        return np.ones(len(unit_of_image), np.bool_)
    speaking = np.asarray(image_of_target.any(axis=1))
    some = np.zeros(n_units, np.bool_)
    some[unit_of_image[speaking]] = True
    return np.asarray(speaking | ~some[unit_of_image])


def _learned_from(
    run: Run,
    unit_of_image: npt.NDArray[np.int64],
    unit_ids: Sequence[str],
    content_sha256: npt.NDArray[np.uint8] | None,
) -> npt.NDArray[np.bool_]:
    """Return (n_units,) whether the run learned from the unit, by its id or by the pixels of one of its images."""
    known = np.array([unit in run.learned_units for unit in unit_ids], np.bool_)
    if content_sha256 is not None:
        digests = frozenset(digest.tobytes() for digest in run.learned_images)
        again = [digest.tobytes() in digests for digest in content_sha256]
        known[unit_of_image[again]] = True
    return known


def _metadata(
    run: Run, metadata: Cells | None, unit_of_image: npt.NDArray[np.int64], n_units: int
) -> list[dict[str, list[str]]]:
    """Return, by unit, the sorted different values of each column that the heads get; ``[]`` where they get none."""
    blocks = run.predictor.blocks
    if blocks is None:
        return []
    found: list[dict[str, list[str]]] = [{column: [] for column in blocks.columns} for _ in range(n_units)]
    for column in blocks.columns:
        levels, code = np.unique(blocks.require(metadata)[column], return_inverse=True)
        for unit, level in np.unique(np.stack([unit_of_image, code], axis=1), axis=0):
            found[unit][column].append(str(levels[level]))
    return found


def _with_unseen(run: Run, stated: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a unit's metadata, and its values that stand for none because no head was fitted on them."""
    blocks = run.predictor.blocks
    unseen = {
        column: strange
        for column, levels in (zip(blocks.columns, blocks.levels, strict=True) if blocks else ())
        if (strange := [value for value in stated[column] if value not in levels])
    }
    return {"metadata": stated, **({"metadata_unseen": unseen} if unseen else {})}


def _answers(
    run: Run, index: int, probabilities: Floats, rule: str, wanted: str | None
) -> list[Mapping[str, Any]]:
    members = run.conformal[index].members(probabilities)
    answered = ~np.isnan(probabilities[:, 0])
    prevalence = prevalence_of(wanted, probabilities[answered], run.document["heads"][index]["prevalence"])
    threshold = _threshold(run, index, rule, prevalence)
    graded = _graded(run, index, rule, probabilities)
    stated = prevalence.to_json(run.classes)
    shifted = prevalence.apply(probabilities)
    return [
        {
            **_decided(run.classes, shifted[row], threshold),
            **graded[row],
            "conformal_set": _named(run.classes, members[row]),
            "prevalence": stated,
        }
        for row in range(len(probabilities))
    ]


def _with_heaviest(
    answers: list[Mapping[str, Any]],
    weights: Floats | None,
    unit_of_image: npt.NDArray[np.int64],
    names: Sequence[str | int],
) -> list[Mapping[str, Any]]:
    """Return the answers of a target with the images that had most to say in each, the heaviest first."""
    if weights is None:
        return answers
    heaviest: list[list[dict[str, Any]]] = [[] for _ in answers]
    for image in np.lexsort((-weights, unit_of_image)).tolist():
        of_unit = heaviest[unit_of_image[image]]
        # An image that does not speak for the target has no weight.
        if len(of_unit) < HEAVIEST and weights[image] > 0:
            of_unit.append({"image": names[image], "weight": float(weights[image])})
    return [{**answer, "image_weights": own} for answer, own in zip(answers, heaviest, strict=True)]


def _decided(
    classes: Sequence[str], probabilities: npt.NDArray[Any], threshold: float | None
) -> Mapping[str, Any]:
    if np.isnan(probabilities[0]):
        # No image of the unit speaks for the target.
        return {"probabilities": None, "decision": None}
    named = {name: float(probability) for name, probability in zip(classes, probabilities, strict=True)}
    if threshold is None:
        return {"probabilities": named, "decision": classes[int(np.argmax(probabilities))]}
    decision = classes[int(probabilities[1] >= threshold)]
    return {"probabilities": named, "decision": decision, "threshold": threshold}


def _graded(run: Run, index: int, rule: str, probabilities: Floats) -> list[dict[str, Any]]:
    """Return ``decision`` and ``at_least`` of runs of grades at a rule; ``{}`` where the likeliest class is asked for.

    A grade is reached on the probabilities as they are at the prevalence of training: then its sensitivity is that of
    the run wherever it is used.
    """
    grades: Mapping[str, Mapping[str, float]] = run.document["heads"][index].get("grade_thresholds", {})
    if rule == "half" or not grades:
        return [{} for _ in probabilities]
    cuts = {grade: _cut_of_grade(rules, rule) for grade, rules in grades.items()}
    decided = gravest_reached(probabilities, run.classes, cuts)
    said = {grade: at_least(probabilities, run.classes.index(grade)) for grade in cuts}
    return [
        {}
        if np.isnan(probabilities[row, 0])
        else {
            "decision": run.classes[decided[row]],
            "at_least": {
                grade: {
                    "probability": float(of_grade[row]),
                    "threshold": cuts[grade],
                    "reached": bool(of_grade[row] >= cuts[grade]),
                }
                for grade, of_grade in said.items()
            },
        }
        for row in range(len(probabilities))
    ]


def _cut_of_grade(rules: Mapping[str, float], rule: str) -> float:
    """Return the threshold of a grade by a rule of the run, or a number."""
    return rules[rule] if rule in rules else _number_of(rule, rules)


def _number_of(rule: str, known: Mapping[str, float]) -> float:
    try:
        number = float(rule)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise UsageError(
            f"threshold must be one of {', '.join(known)} or a number from 0 to 1; found {rule!r}"
        )
    return number


def _named(classes: Sequence[str], members: npt.NDArray[np.int8]) -> list[str] | None:
    if members[0] == UNKNOWN:
        return None
    return [name for name, inside in zip(classes, members, strict=True) if inside]


def _threshold(run: Run, index: int, rule: str, prevalence: Prevalence) -> float | None:
    if len(run.classes) > 2:
        return None
    known: Mapping[str, float] = run.document["heads"][index]["thresholds"]
    if rule in known:
        return HALF if rule == "half" else prevalence.apply_to_threshold(known[rule])
    return _number_of(rule, known)
