"""How well a store's nearest units agree in their labels, in its own space or in that of a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError, UsageError
from embedstore.files import StrPath
from embedstore.queries.conditions import parse_conditions, rows_where
from embedstore.queries.load_view import load_view
from embedstore.store.reader import Store, as_store
from embedstore.view import View
from heads.protocol.predictor import Predictor
from heads.protocol.splits import TrainedUnits
from heads.retrieval.evaluate_retrieval import (
    LabelledUnits,
    RetrievalOptions,
    RetrievalQuality,
    evaluate_retrieval,
)
from heads.runs.run import Run
from heads.runs.run_files import load_run
from heads.scores import Floats


@dataclass(frozen=True, kw_only=True)
class SpaceQuality:
    """The quality of a search in one space.

    Parameters
    ----------
    space
        ``encoder``, or the folder of the run whose hidden layer it is.
    width
        Numbers of a vector.
    quality
        How well the nearest agree.
    """

    space: str
    width: int
    quality: RetrievalQuality


@dataclass(frozen=True, kw_only=True)
class SearchQuality:
    """What `evaluate_search` found.

    Parameters
    ----------
    task, unit
        Whose labels are compared, and of what.
    spaces
        The encoder's own space, and that of the run where one was asked for, on the same queries.
    """

    task: str
    unit: str
    spaces: Sequence[SpaceQuality]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        spaces = [
            {"space": space.space, "width": space.width, **space.quality.to_json()} for space in self.spaces
        ]
        return {"task": self.task, "unit": self.unit, "spaces": spaces}


def evaluate_search(
    store: Store | StrPath,
    task: str | None = None,
    options: RetrievalOptions | None = None,
    *,
    space: StrPath | Run | None = None,
    where: Sequence[str] = (),
    trained_patients: TrainedUnits = "refuse",
) -> SearchQuality:
    """Let each labelled unit of a store ask for the nearest ones of other patients, and compare labels.

    Parameters
    ----------
    store
        The store, opened or by its folder.
    task
        Whose labels; may be None where the store has one.
    options
        How; the defaults where None.
    space
        A run: the space of its hidden layer is evaluated too. Then only patients ask that the run did not learn from.
    where
        Conditions on images.
    trained_patients
        Of a store whose encoder was fine-tuned: ``refuse`` it if a unit's patient had a part in that, ``leave-out``
        lets only others ask (they may find everybody), ``use`` lets everybody ask.

    Raises
    ------
    UsageError
        If the task has to be named, the run's head has no hidden layer, or it learned from all units.
    DataError
        If no two labelled patients are left, or the encoder was fine-tuned on some of them.
    IdentityMismatch
        If the run has learned from other vectors.
    """
    opened, asked = as_store(store), options or RetrievalOptions()
    run = space if space is None or isinstance(space, Run) else load_run(space)
    columns = () if run is None else run.predictor.columns
    view = load_view(opened, task, with_columns=columns)
    kept = _kept(opened, view, where)
    asking = _untrained(view, trained_patients)
    vectors: list[tuple[str, npt.NDArray[np.floating]]] = [("encoder", view.X)]
    if run is not None:
        run.require_identity(opened.identity)
        learned = np.isin(view.unit_ids, list(run.learned_units))
        new = ~np.isin(view.patients, view.patients[learned])
        asking = new if asking is None else new & asking
        if not asking.any():
            raise UsageError(
                f"run {run.folder} learned from every unit of store {opened.path}: what its own labels made near says "
                "nothing. Evaluate a run that has an official split, or a store of other patients"
            )
        vectors.append((str(run.folder), _hidden(run, view)))
    found = []
    for name, X in vectors:
        units = _units(view, X, kept)
        some = None if asking is None else asking[np.unique(view.unit_of_image[kept])]
        found.append(
            SpaceQuality(space=name, width=X.shape[1], quality=evaluate_retrieval(units, asked, asking=some))
        )
    return SearchQuality(task=view.task.name, unit=view.task.unit, spaces=found)


def _untrained(view: View, rule: TrainedUnits) -> npt.NDArray[np.bool_] | None:
    """Return which units may ask, (n_units,) bool; None for all."""
    seen = None if view.trained is None else view.trained != ""
    if seen is None or rule == "use" or not seen.any():
        return None
    if rule == "refuse":
        raise DataError(
            f"task {view.task.name!r}: the encoder was fine-tuned on the patients of {int(seen.sum()):,} of "
            f"{len(seen):,} units, whose neighbours agree because it was taught so. `trained_patients='leave-out'` "
            "lets only others ask, `'use'` everybody"
        )
    if seen.all():
        raise DataError(
            f"task {view.task.name!r}: the encoder was fine-tuned on every patient; nobody is left to ask"
        )
    asking: npt.NDArray[np.bool_] = ~seen
    return asking


def _kept(store: Store, view: View, where: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return (n_images,) which images of a view meet the conditions."""
    rows = [store.row_of[image_id] for image_id in view.image_ids.tolist()]
    table = store.table.take(pa.array(rows, pa.int64()))
    return rows_where(table, parse_conditions(where), holder="the store")


def _units(view: View, X: npt.NDArray[np.floating], kept: npt.NDArray[np.bool_]) -> LabelledUnits:
    left, unit_of_image = np.unique(view.unit_of_image[kept], return_inverse=True)
    return LabelledUnits(
        X=X[kept],
        unit_of_image=unit_of_image.astype(np.int64),
        unit_ids=view.unit_ids[left],
        patients=view.patients[left],
        y=view.y[left],
        targets=view.task.targets,
        classes=view.task.classes,
        ordered=view.task.ordered,
    )


def _hidden(run: Run, view: View) -> Floats:
    """Return the (n_images, width) hidden vectors of a run's heads, those of all targets side by side."""
    predictor = run.predictor
    if not isinstance(predictor, Predictor) or predictor.bins is not None:
        raise UsageError(
            f"run {run.folder} joins several heads or images, so it has no space of its own for images"
        )
    rows = view.X if predictor.blocks is None else predictor.blocks.append(view.X, view.metadata)
    hidden = [head.hidden_vectors(np.ascontiguousarray(rows, np.float32)) for head in predictor.heads]
    known = [of_head for of_head in hidden if of_head is not None]
    if len(known) < len(hidden):
        head = run.document["settings"]["head"]
        raise UsageError(f"run {run.folder} is of head {head!r}, which has no hidden layer; give one of mlp")
    return np.concatenate(known, axis=1)
