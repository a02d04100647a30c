"""One self-contained HTML page about generated answers beside runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from embedstore.files import StrPath, write_durable
from heads.comparing.calibration_curves import EVENTS
from heads.comparing.compared_answers import CALIBRATION, DIFFERENCES, PRIOR, SCORES
from heads.comparing.responses_table import ResponsesTable
from heads.lumbar.grades import LABELS
from heads.reporting.charts import calibration_chart, forest_chart
from heads.reporting.words import PHANTOM, data_in_words, estimate_text
from heads.runs.comparison import p_value_in_words
from heads.statistics.metrics import metric_label


def render_responses(table: ResponsesTable) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("heads.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"estimate": estimate_text, "metric": _label}
    names = [*LABELS, *SCORES, *CALIBRATION]
    page = environment.get_template("responses.html").render(
        table=table,
        rows=[row.to_json() for row in table.rows],
        baseline=table.rows[table.baseline].name,
        columns=[name for name in names if any(name in row.metrics for row in table.rows)],
        conditions=list(table.rows[0].conditions),
        differences=_differences(table),
        forest=_forest(table),
        curves=_curves(table),
        data=data_in_words(table.sources),
        phantoms=any(source["phantom"] for source in table.sources),
        phantom=PHANTOM,
    )
    return str(page)


def save_responses(path: StrPath, table: ResponsesTable) -> None:
    """Write the page of `render_responses` to `path`; its folder must exist."""
    write_durable(Path(path), render_responses(table).encode(), label="comparison")


def _label(name: str) -> str:
    return LABELS.get(name) or {SCORES[0]: "RSNA score", SCORES[1]: "RSNA score, uncorrected"}.get(
        name, metric_label(name)
    )


def _differences(table: ResponsesTable) -> list[dict[str, Any]]:
    return [
        {
            "metric": name,
            "name": row.name,
            "difference": row.differences[name].estimate.to_json(),
            "p": p_value_in_words(row.differences[name].p_value, row.differences[name]),
            "corrected": p_value_in_words(row.corrected_p[name], row.differences[name]),
        }
        for name in DIFFERENCES
        for row in table.rows
        if name in row.differences
    ]


def _curves(table: ResponsesTable) -> dict[str, str]:
    """Draw what each row with probabilities states against what was observed, the prior aside: it is one point."""
    rows = [row for row in table.rows if row.calibration and row.kind != PRIOR]
    return {
        event: calibration_chart(
            {row.name: row.calibration[event].points for row in rows},
            name=f"cal{number}",
            title=f"calibration, {event}",
        )
        for number, event in enumerate(EVENTS)
    }


def _forest(table: ResponsesTable) -> str | None:
    """Draw the kappa of each row, the baseline first; its value gets the line."""
    others = [row for position, row in enumerate(table.rows) if position != table.baseline]
    drawn = [
        (row.name, found.value, found.low, found.high)
        for row in (table.rows[table.baseline], *others)
        if (found := row.metrics["kappa"]).value == found.value
    ]
    return forest_chart(drawn, label="kappa", name="rf", title="kappa of each row") if drawn else None
