"""One self-contained HTML page about encoders and heads against a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from embedstore.files import StrPath, write_durable
from embedstore.task import units_in_words
from heads.comparing.comparison_table import ComparisonTable
from heads.lumbar.rsna_score import RUN_SCORES
from heads.reporting.charts import forest_chart
from heads.reporting.words import PHANTOM, data_in_words, estimate_text
from heads.runs.comparison import p_value_in_words
from heads.runs.run_warnings import FEW_PATIENTS
from heads.statistics.bootstrap import Estimate
from heads.statistics.metrics import computed_in, metric_label, shown_in


def render_comparison(table: ComparisonTable) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("heads.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"estimate": estimate_text, "metric": metric_label}
    runs = [table.runs[position] for position in table.best_first]
    sources = [source for entry in runs for source in entry.run.document["sources"]]
    page = environment.get_template("compare.html").render(
        table=table,
        runs=[
            {
                "name": entry.name,
                "run_id": entry.run.run_id,
                "data": data_in_words(entry.run.document["sources"]),
                "metrics": {name: found.to_json() for name, found in entry.metrics.items()},
            }
            for entry in runs
        ],
        baseline=table.runs[table.baseline].name,
        units=units_in_words(table.unit),
        differences=_differences(table),
        cells=_cells(table),
        columns=_columns(table),
        forest=_forest(table),
        forest_of_differences=_forest_of_differences(table),
        phantoms=bool(sources) and any(source["phantom"] for source in sources),
        phantom=PHANTOM,
        fewest=FEW_PATIENTS,
    )
    return str(page)


def save_comparison(path: StrPath, table: ComparisonTable) -> None:
    """Write the page of `render_comparison` to `path`; its folder must exist.

    Examples
    --------
    >>> heads.save_comparison("encoders.html", heads.comparison_table([run, "runs/nearest"], draws=100))
    """
    write_durable(Path(path), render_comparison(table).encode(), label="comparison")


def _columns(table: ComparisonTable) -> list[str]:
    """Return the metrics of the table of runs: those of the terminal, and what a report's tiles show."""
    names = dict.fromkeys((*table.columns, *shown_in("tiles")))
    return [name for name in names if any(name in entry.metrics for entry in table.runs)]


def _differences(table: ComparisonTable) -> list[dict[str, Any]]:
    """Return a row for each metric and run but the baseline, the best run first in each metric."""
    return [
        {
            "metric": name,
            "name": entry.name,
            "difference": entry.differences[name].estimate.to_json(),
            "p": p_value_in_words(entry.differences[name].p_value, entry.differences[name]),
            "corrected": p_value_in_words(entry.corrected_p[name], entry.differences[name]),
        }
        for name in (*computed_in("comparison"), *RUN_SCORES)
        for entry in (table.runs[position] for position in table.best_first)
        if name in entry.differences
    ]


def _cells(table: ComparisonTable) -> list[dict[str, Any]]:
    """Return a row for each cell and run, in the order of the table; a refused cell has one."""
    rows: list[dict[str, Any]] = []
    for cell in table.cells:
        facts = {
            "column": cell.column,
            "cell": cell.cell,
            "units": cell.units,
            "patients": cell.patients,
            "refused": cell.refused,
        }
        if cell.refused:
            rows.append(facts | {"runs": []})
            continue
        of_runs = zip(table.runs, cell.values, cell.differences, strict=True)
        rows.append(
            facts
            | {
                "runs": [
                    {
                        "name": entry.name,
                        "value": value.to_json(),
                        "difference": None if difference is None else difference.to_json(),
                    }
                    for entry, value, difference in of_runs
                ]
            }
        )
    return rows


def _forest(table: ComparisonTable) -> str | None:
    """Draw the leading metric of each run, the baseline first; its value gets the line."""
    order = [table.baseline, *(position for position in table.best_first if position != table.baseline)]
    rows = [
        _row(table.runs[at].name, table.runs[at].metrics[table.metric])
        for at in order
        if table.metric in table.runs[at].metrics
    ]
    label = metric_label(table.metric)
    return _drawn(rows, label=label, name="cf", title=f"{label} of each run")


def _forest_of_differences(table: ComparisonTable) -> str | None:
    """Draw each run minus the baseline, on all common units and in each cell."""
    label = f"{metric_label(table.metric)}, difference to {table.runs[table.baseline].name}"
    rows = []
    for position in table.best_first:
        entry = table.runs[position]
        if table.metric not in entry.differences:
            continue
        rows.append(_row(entry.name, entry.differences[table.metric].estimate))
        rows += [
            _row(f"{cell.column}: {cell.cell} (n = {cell.units})", found)
            for cell in table.cells
            if cell.differences and (found := cell.differences[position]) is not None
        ]
    return _drawn(rows, label=label, name="cd", title=label, line=0.0)


def _row(legend: str, found: Estimate) -> tuple[str, float, float, float]:
    return legend, found.value, found.low, found.high


def _drawn(rows: Sequence[tuple[str, float, float, float]], **options: Any) -> str | None:
    known = [row for row in rows if row[1] == row[1]]
    return forest_chart(known, **options) if known else None
