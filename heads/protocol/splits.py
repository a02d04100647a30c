"""Which units a head learns from and which it is evaluated on.

A fine-tuned encoder separates the patients that taught it better than any others: a head that is evaluated on them, or
calibrated on them, is too sure of itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from embedstore.finetuned.trained_patients import TAUGHT
from embedstore.view import MISSING, View, take_units
from heads.few_shots import DRAWN, NOT_DRAWN

Mode = Literal["official split", "few shots", "outer cross-validation"]
TrainedUnits = Literal["refuse", "leave-out", "use"]
TRAINED_UNITS: tuple[TrainedUnits, ...] = ("refuse", "leave-out", "use")
_TAUGHT = "patient whose images taught the encoder"
_JUDGED = "patient by whose images the encoder was chosen"


@dataclass(frozen=True)
class Split:
    """Training and evaluation units.

    Parameters
    ----------
    mode
        Whether the data set states a split, a few units were drawn to learn from, or neither.
    fitted, evaluated
        (n_units,) bool; the same units in cross-validation.
    fit_names, evaluation_name
        Names of the splits; ``()`` and ``""`` in cross-validation.
    excluded
        Reason -> how many units are in neither.
    """

    mode: Mode
    fitted: npt.NDArray[np.bool_]
    evaluated: npt.NDArray[np.bool_]
    fit_names: tuple[str, ...]
    evaluation_name: str
    excluded: dict[str, int]


def split_units(view: View) -> Split:
    """Follow the official split if there is one, else cross-validate over every labelled unit.

    ``test`` is the evaluation set, or ``valid`` where there is no test. With both, valid joins the training units:
    nothing here is tuned on it, and the test split is used once. Of few shots (`heads.few_shots`) without an official
    split, everybody who was not drawn is evaluated.

    Raises
    ------
    DataError
        If the official split lacks training or evaluation units.
    """
    labelled = (view.y != MISSING).any(axis=1)
    excluded = {"unit without any label": int((~labelled).sum())} if not labelled.all() else {}
    names = set(np.unique(view.splits[labelled]).tolist())
    if not names - {""}:
        return Split("outer cross-validation", labelled, labelled, (), "", excluded)
    if DRAWN in names:
        if (labelled & (view.splits == "")).any():
            excluded["further unit of a patient who was drawn"] = int((labelled & (view.splits == "")).sum())
        return Split(
            "few shots",
            labelled & (view.splits == DRAWN),
            labelled & (view.splits == NOT_DRAWN),
            (DRAWN,),
            NOT_DRAWN,
            excluded,
        )
    evaluation_name = "test" if "test" in names else "valid"
    fit_names = tuple(sorted(names - {"", NOT_DRAWN, evaluation_name}))
    if evaluation_name not in names or not fit_names:
        raise DataError(
            f"task {view.task.name!r}: an official split needs labelled units in 'train' and in 'valid' or "
            f"'test'; found only {sorted(names - {''})}. `cross_validate=True` passes over the split and evaluates "
            "every unit out of fold"
        )
    if "" in names:
        excluded["unit outside the official split"] = int((labelled & (view.splits == "")).sum())
    if NOT_DRAWN in names:
        excluded["training unit that was not drawn"] = int((labelled & (view.splits == NOT_DRAWN)).sum())
    fitted = labelled & np.isin(view.splits, fit_names)
    evaluated = labelled & (view.splits == evaluation_name)
    return Split("official split", fitted, evaluated, fit_names, evaluation_name, excluded)


def with_trained_units(view: View, rule: TrainedUnits) -> View:
    """Return the view as a rule treats units of patients that the encoder was trained on.

    Parameters
    ----------
    view
        Of a fine-tuned encoder's store; any other is returned as it is.
    rule
        ``refuse``: as it is, and a probe refuses it if there are such units; ``leave-out``: without patients who
        taught the encoder, and without an official split also without those by whom it was chosen, as they would be
        evaluated; ``use``: with all of them, and the run says so.

    Raises
    ------
    UsageError
        For another rule.
    DataError
        If nobody is left.
    """
    if rule not in TRAINED_UNITS:
        raise UsageError(f"`trained_patients` must be one of {', '.join(TRAINED_UNITS)}; found {rule!r}")
    if view.trained is None or rule == "refuse":
        return view
    if rule == "use":
        return replace(view, allows_trained=True)
    taught = view.trained == TAUGHT
    official = split_units(view).mode == "official split"
    judged = (view.trained != "") & ~taught & ~np.array(official)
    if (taught | judged).all():
        raise DataError(
            f"task {view.task.name!r}: the encoder was trained on every patient of these units, so that none is left "
            "to judge it by. Fine-tune with a part held out, or with folds"
        )
    counts = {_TAUGHT: int(taught.sum()), _JUDGED: int(judged.sum())}
    kept = take_units(view, ~(taught | judged))
    return replace(kept, excluded={**view.excluded, **{why: n for why, n in counts.items() if n}})


def require_untrained(view: View, split: Split) -> None:
    """Refuse a probe that learns from patients who taught the encoder, or is evaluated on any whom it has seen.

    Raises
    ------
    DataError
        With how many there are, unless the view allows it.
    """
    if view.trained is None or view.allows_trained:
        return
    learned, judged = (view.trained == TAUGHT) & split.fitted, seen_units(view, split.evaluated)
    if learned.any() or judged.any():
        raise DataError(
            f"task {view.task.name!r}: the encoder was fine-tuned on the patients of {int(learned.sum()):,} units to "
            f"learn from and has seen those of {int(judged.sum()):,} to be evaluated on, so that results would be "
            "too good. `trained_patients='leave-out'` leaves them out; "
            "`trained_patients='use'` takes them all the same, and the run says so"
        )


def seen_units(view: View, units: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which of some units are of patients whom the encoder has seen in its training, (n_units,) bool."""
    nobody = np.zeros(len(units), np.bool_)
    return nobody if view.trained is None else units & (view.trained != "")
