"""What was predicted of units: one class, and one schema of ``predictions.parquet``.

A unit stands there once for each target. A new column is a line each in `schema`, `Predictions.to_table` and
`Predictions.from_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.view import MISSING
from heads.scores import Floats, probabilities_from_scores
from heads.statistics.bootstrap import draw_patients
from heads.statistics.conformal import UNKNOWN
from heads.statistics.evaluation import Scored

Role = Literal["out-of-fold", "evaluation"]
OUT_OF_FOLD: Role = "out-of-fold"
EVALUATION: Role = "evaluation"
NO_FOLD = -1


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Scores and probabilities of units, out of fold or of the evaluation set.

    Parameters
    ----------
    unit_ids, patients
        (n_units,) str.
    splits
        (n_units,) str: the data set's own words (``train``, ``valid``, ``test``), ``""`` without an official split.
    fold
        (n_units,) int64; `NO_FOLD` where an official split left no fold.
    y
        (n_units, targets) int64, `MISSING` where there is no label.
    scores
        (n_units, targets, columns) before calibration; NaN where the heads had nothing to score.
    probabilities
        (n_units, targets, n_classes) calibrated; NaN out of fold where the target has no label.
    members
        (n_units, targets, n_classes) int8: which classes are in the conformal set; `heads.statistics.conformal.UNKNOWN`
        out of fold, where the bars come from, and where sets were refused.
    """

    unit_ids: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]
    fold: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    scores: Floats
    probabilities: Floats
    members: npt.NDArray[np.int8]

    @property
    def uncalibrated(self) -> Floats:
        """(n_units, targets, n_classes) probabilities that the heads alone would state."""
        return probabilities_from_scores(self.scores)

    def scored(
        self,
        *,
        draws: int,
        seed: int,
        class_weights: tuple[float, ...] | None = None,
        ordered: bool = False,
    ) -> Scored:
        """Return the probabilities beside the labels, with bootstrap draws of their patients; as `Scored`."""
        from_patients = draw_patients(self.patients, draws=draws, seed=seed)
        return Scored(self.y, self.probabilities, from_patients, class_weights, ordered)

    def to_table(self, role: Role, *, targets: Sequence[str], classes: Sequence[str]) -> pa.Table:
        """Return the predictions as an Arrow table of `schema`: all units of the first target, then of the next."""
        columns, n = schema(classes), len(self.unit_ids)
        names = np.array([*classes, None], object)
        parts = []
        for index, target in enumerate(targets):
            cells: list[Any] = [
                self.unit_ids.tolist(),
                self.patients.tolist(),
                [role] * n,
                self.splits.tolist(),
                pa.array(self.fold, pa.int64(), mask=self.fold == NO_FOLD),
                [target] * n,
                names[self.y[:, index]].tolist(),
                *_nullable(self.scores[:, index]),
                *_nullable(self.probabilities[:, index]),
                _named_sets(self.members[:, index], classes),
            ]
            arrays = [
                cell if isinstance(cell, pa.Array) else pa.array(cell, field.type)
                for cell, field in zip(cells, columns, strict=True)
            ]
            parts.append(pa.table(arrays, schema=columns))
        return pa.concat_tables(parts)

    @classmethod
    def from_table(
        cls, table: pa.Table, role: Role, *, targets: Sequence[str], classes: Sequence[str]
    ) -> Predictions:
        """Return the predictions of a role again, to the bit, from a table of `schema`; other roles are passed over."""
        rows = table.filter(pc.equal(table.column("role"), role))
        by_target = [rows.filter(pc.equal(rows.column("target"), target)) for target in targets]
        first = by_target[0]
        return cls(
            unit_ids=np.array(first.column("unit_id").to_pylist(), np.str_),
            patients=np.array(first.column("patient_id").to_pylist(), np.str_),
            splits=np.array(first.column("split").to_pylist(), np.str_),
            fold=first.column("fold").fill_null(NO_FOLD).to_numpy(),
            y=np.stack([_codes(part.column("label"), classes) for part in by_target], axis=1),
            scores=np.stack([_matrix(part, _score_columns(classes)) for part in by_target], axis=1),
            probabilities=np.stack(
                [_matrix(part, [f"prob_{name}" for name in classes]) for part in by_target], axis=1
            ),
            members=np.stack([_members(part.column("conformal_set"), classes) for part in by_target], axis=1),
        )


@dataclass(frozen=True, kw_only=True)
class InnerFolds:
    """What inner folds said while an outer one was left out; log odds as those of `Evidence`.

    Parameters
    ----------
    folds
        (outer folds, n_units) int64: the inner fold of each unit; `NO_FOLD` where it was left out.
    log_odds
        (outer folds, n_units, targets, columns); NaN where a unit was left out.
    cut
        The same as wide as the final head's; None where they are.
    """

    folds: npt.NDArray[np.int64]
    log_odds: npt.NDArray[np.float32]
    cut: npt.NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was said out of fold beyond `Predictions`: whatever joins several heads learns from it.

    Log odds are of cross-fitted calibrated probabilities (`heads.scores.log_odds_of`), float32, NaN without a label.

    Parameters
    ----------
    cut
        (n_units, targets, columns) log odds from which thresholds and conformal bars are cut; None where they are
        those of the out-of-fold probabilities.
    inner
        Of an outer cross-validation; None where an official split evaluated.
    """

    cut: npt.NDArray[np.float32] | None = None
    inner: InnerFolds | None = None

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what there is, as safetensors can hold it; ``{}`` where there is nothing."""
        named: dict[str, npt.NDArray[Any] | None] = {"cut": self.cut}
        if self.inner is not None:
            named |= {f"inner.{field.name}": getattr(self.inner, field.name) for field in fields(self.inner)}
        return {name: array for name, array in named.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Evidence:
        """Build it again; raises KeyError where an array of inner folds is missing."""
        inner = None
        if "inner.folds" in arrays:
            inner = InnerFolds(
                folds=arrays["inner.folds"],
                log_odds=arrays["inner.log_odds"],
                cut=arrays.get("inner.cut"),
            )
        return cls(cut=arrays.get("cut"), inner=inner)


def schema(classes: Sequence[str]) -> pa.Schema:
    """Return the columns of ``predictions.parquet`` with their types.

    ``role`` is ``out-of-fold`` or ``evaluation``, ``split`` the data set's own word. Null stands for no fold, no label,
    no score, no probability (out of fold: of a target without a label), and for a conformal set where there are none.
    """
    return pa.schema(
        [
            ("unit_id", pa.string()),
            ("patient_id", pa.string()),
            ("role", pa.string()),
            ("split", pa.string()),
            ("fold", pa.int64()),
            ("target", pa.string()),
            ("label", pa.string()),
            *((name, pa.float64()) for name in _score_columns(classes)),
            *((f"prob_{name}", pa.float64()) for name in classes),
            ("conformal_set", pa.list_(pa.string())),
        ]
    )


def _nullable(columns: Floats) -> list[pa.Array]:
    return [pa.array(column, pa.float64(), mask=np.isnan(column)) for column in columns.T]


def _score_columns(classes: Sequence[str]) -> list[str]:
    return ["score"] if len(classes) == 2 else [f"score_{name}" for name in classes]


def _named_sets(members: npt.NDArray[np.int8], classes: Sequence[str]) -> list[list[str] | None]:
    return [
        None if row[0] == UNKNOWN else [name for name, inside in zip(classes, row, strict=True) if inside]
        for row in members.tolist()
    ]


def _codes(labels: pa.ChunkedArray, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    codes = pc.index_in(labels, pa.array(classes, pa.string())).fill_null(MISSING)
    return np.asarray(codes.to_numpy(), np.int64)


def _matrix(table: pa.Table, names: Sequence[str]) -> Floats:
    return np.column_stack([table.column(name).to_numpy() for name in names])


def _members(sets: pa.ChunkedArray, classes: Sequence[str]) -> npt.NDArray[np.int8]:
    members = np.zeros((len(sets), len(classes)), np.int8)
    members[pc.is_null(sets).to_numpy()] = UNKNOWN
    row_of_name = pc.list_parent_indices(sets).to_numpy()
    members[row_of_name, _codes(pc.list_flatten(sets), classes)] = 1
    return members
