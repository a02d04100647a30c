"""Runs of stores whose ids have nothing in common (other keys, other tables): units by the digests of their images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from heads.runs.run import Run
from heads.runs.unit_table import unit_facts


def by_content(run: Run, baseline: Run) -> Run | None:
    """Return a run with the baseline's ids for the units that have the same images.

    Patients get the baseline's names, too, where each of one run is one of the other; units and patients that the
    baseline does not know keep theirs.

    Returns
    -------
    Run or None
        None where a unit of one id is in both runs, pixels are unknown, or no digest is that of one unit in each.
    """
    if run.units is None or baseline.units is None:
        return None
    own, others = _unit_of_content(run), _unit_of_content(baseline)
    mine = set(run.units.column("unit_id").to_pylist())
    if mine & set(baseline.units.column("unit_id").to_pylist()):
        return None
    units = {unit: others[content] for content, unit in own.items() if content in others}
    if not units:
        return None
    patients = _patient_names(_patient_of(run), _patient_of(baseline), units)
    table = _renamed(run.predictions, "unit_id", units)
    return replace(
        run,
        predictions=_renamed(table, "patient_id", patients),
        units=_renamed(run.units, "unit_id", units),
    )


def _unit_of_content(run: Run) -> dict[str, str]:
    """Return digest -> unit, without those of several units: copies cannot be told apart."""
    assert run.units is not None
    facts = unit_facts(run.units)
    found: dict[str, str] = {}
    several = {""}
    for unit, row in facts.row_of.items():
        content = str(facts.content[row])
        if found.setdefault(content, unit) != unit:
            several.add(content)
    return {content: unit for content, unit in found.items() if content not in several}


def _patient_of(run: Run) -> dict[str, str]:
    columns = (run.predictions.column(name).to_pylist() for name in ("unit_id", "patient_id"))
    return dict(zip(*columns, strict=True))


def _patient_names(
    mine: Mapping[str, str], others: Mapping[str, str], units: Mapping[str, str]
) -> dict[str, str]:
    """Return patient -> the baseline's name; empty where patients are not one to one, which is refused later."""
    pairs = {(mine[unit], others[other]) for unit, other in units.items() if unit in mine and other in others}
    names = dict(pairs)
    return names if len(names) == len(pairs) == len(set(names.values())) else {}


def _renamed(table: pa.Table, column: str, names: Mapping[str, str]) -> pa.Table:
    cells = [names.get(cell, cell) for cell in table.column(column).to_pylist()]
    position = table.column_names.index(column)
    return table.set_column(position, table.schema.field(column), pa.array(cells, pa.string()))
