"""Which units a head learns from and which it is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.view import MISSING, View
from heads.few_shots import DRAWN, NOT_DRAWN

Mode = Literal["official split", "few shots", "outer cross-validation"]


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
