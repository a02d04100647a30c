"""Rows that XGBoost has projected and quantised once, and the few things around it that know its library."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from embedstore.errors import UsageError
from heads.base import Training, learnable
from heads.principal_axes import Projection
from heads.scores import Floats
from heads.solvers.early_stopping import hold_out

_SMALL_CELLS = 1 << 20


@dataclass(frozen=True)
class QuantisedRows:
    """Rows projected and quantised once, for every target and configuration that has the same axes and bins.

    Parameters
    ----------
    training
        Labels and weights of all rows.
    rows
        (k,) int64 rows that are seen, labelled for some target or not.
    projection
        Fitted on these rows.
    projected
        (k, columns) float32.
    matrix
        The quantised rows, whose bins are of these rows.
    max_bin
        Bins of a column.
    held_out
        By target, share and seed: which rows are learned from, and the quantised rows held out.
    """

    training: Training
    rows: npt.NDArray[np.int64]
    projection: Projection
    projected: npt.NDArray[np.float32]
    matrix: xgboost.QuantileDMatrix
    max_bin: int
    held_out: dict[tuple[int, float, int], tuple[Any, Any]] = field(default_factory=dict)

    @classmethod
    def create(
        cls, training: Training, rows: npt.NDArray[np.int64], *, components: int, max_bin: int
    ) -> QuantisedRows:
        """Project and quantise rows; raises UsageError where a number is too small."""
        if components < 0 or max_bin < 2:
            raise UsageError(
                f"xgboost: components must be 0 or more and max_bin 2 or more; found {components}, {max_bin}"
            )
        seen = training.X[rows]
        projection = Projection.fit(seen, components)
        projected = projection(seen)
        matrix = xgboost.QuantileDMatrix(projected, max_bin=max_bin)
        return cls(training, rows, projection, projected, matrix, max_bin)

    def labelled(self, target: int, *, share: float, seed: int) -> tuple[xgboost.QuantileDMatrix, Any]:
        """Return the matrix with a target's labels, and the rows held out to stop by, None without any.

        A row without a label, or held out, stays in the matrix with weight 0: it moves no tree.
        """
        key = (target, share, seed)
        if key not in self.held_out:
            known = self.rows[learnable(self.training, target)[self.rows]]
            kept, held = hold_out(self.training, target, known, share=share, seed=seed)
            self.held_out[key] = (np.isin(self.rows, kept), self._evaluated(held, target))
        kept_here, evaluated = self.held_out[key]
        weight = np.where(kept_here, self.training.sample_weight[self.rows, target], 0)
        self.matrix.set_info(
            label=np.maximum(self.training.y[self.rows, target], 0),
            # Of mean one: leaf penalties mean the same whatever the scale of the weights.
            weight=weight * (kept_here.sum() / weight.sum(dtype=np.float64)),
        )
        return self.matrix, evaluated

    def _evaluated(self, held: npt.NDArray[np.int64], target: int) -> Any:
        if len(held) == 0:
            return None
        return xgboost.QuantileDMatrix(
            self.projected[np.isin(self.rows, held)],
            label=self.training.y[held, target],
            weight=self.training.sample_weight[held, target],
            max_bin=self.max_bin,
            ref=self.matrix,
        )


def margins(booster: xgboost.Booster, rows: npt.NDArray[np.float32], columns: int) -> Floats:
    """Return (n, columns) float64 logits; each row is the sum of its own leaves, in order."""
    if len(rows) == 0:
        return np.zeros((0, columns))
    found = booster.predict(xgboost.DMatrix(rows), output_margin=True)
    return np.asarray(found, np.float64).reshape(len(rows), columns)


def threads_for(cells: int) -> int:
    """Return XGBoost's number of threads for so many cells; 0 is all cores.

    A round on few rows is shorter than its threads' meeting: 130 rows took 20 s on a busy machine in place of 2 s.
    """
    return 1 if cells <= _SMALL_CELLS else 0


def device_of(device: str) -> str:
    """Return XGBoost's device; ``auto`` is a GPU if XGBoost finds one.

    Raises
    ------
    UsageError
        For another name, or a GPU that XGBoost does not find.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"device must be auto, cpu or cuda for xgboost; found {device!r}")
    if device == "cuda" and _found_device() == "cpu":
        # XGBoost itself would warn and go on with the CPU.
        raise UsageError("device 'cuda' is not there: XGBoost finds no GPU; use cpu")
    return _found_device() if device == "auto" else device


@cache
def _found_device() -> str:
    """Return ``cuda`` or ``cpu``: XGBoost tells only by falling back, with a warning, when it is asked for a GPU."""
    if not xgboost.build_info().get("USE_CUDA"):
        return "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = xgboost.DMatrix(np.arange(4, dtype=np.float32)[:, None], label=np.array([0, 0, 1, 1]))
        booster = xgboost.train({"device": "cuda", "verbosity": 0}, rows, 1)
        state = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    return "cuda" if str(state).startswith("cuda") else "cpu"
