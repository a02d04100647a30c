"""Runs of one hospital's studies seen by several encoders, and copies of a run in which one thing is another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.view import View
from heads.estimators.logistic import LogisticFamily
from heads.runs.run import Run
from heads.runs.run_files import save_run
from tests.views import IDENTITY, make_view, probed

GRID = LogisticFamily(strengths=(0.1,), normalisations=("none",))
# In every view of these tests.
COLUMNS = ("anatomy", "age")


def view_by(encoder: str, *, noise: float = 0.0, **changes: Any) -> View:
    """Return the studies as an encoder of this name sees them: the same vectors, more or less clearly."""
    view = make_view(patients=150)
    generator = np.random.default_rng(len(encoder))
    ages = np.random.default_rng(5).integers(20, 75, len(view.unit_ids))
    seen = replace(
        view,
        identity=replace(IDENTITY, encoder=encoder),
        X=(view.X + noise * generator.normal(size=view.X.shape)).astype(np.float32),
        subgroups=dict(view.subgroups) | {"age": ages.astype(str)},
    )
    return replace(seen, **changes)


def run_of(view: View, folder: Path, **options: Any) -> Run:
    """Probe a view with one logistic grid point, and save it."""
    return save_run(folder, probed(view, draws=20, family=GRID, **options))


def changed(run: Run, column: str, change: Callable[[dict[str, Any]], Any]) -> Run:
    """Return a copy of a run whose table of predictions has other cells in one column."""
    table = run.predictions
    cells = pa.array([change(row) for row in table.to_pylist()], table.schema.field(column).type)
    table = table.set_column(table.column_names.index(column), table.schema.field(column), cells)
    return replace(run, predictions=table)


def of_units(run: Run, units: set[str]) -> Run:
    """Return a copy of a run that evaluated these units only."""
    kept = [row["role"] != "evaluation" or row["unit_id"] in units for row in run.predictions.to_pylist()]
    return replace(run, predictions=run.predictions.filter(pa.array(kept)))


def documented(run: Run, part: str, **changes: Any) -> Run:
    """Return a copy of a run whose document says something else in one of its parts."""
    return replace(run, document={**run.document, part: {**run.document[part], **changes}})
