"""One self-contained HTML page about ways from images to a study's severities."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from embedstore.files import StrPath, write_durable
from heads.comparing.ways_table import WayRow, WaysTable
from heads.lumbar.rsna_score import SCORE, SCORE_LABELS
from heads.lumbar.severity_results import LABELS
from heads.reporting.charts import forest_chart
from heads.reporting.words import PHANTOM, data_in_words, estimate_text
from heads.runs.comparison import p_value_in_words

_SCORES = SCORE_LABELS | {"kappa": "kappa"}


def render_ways(table: WaysTable) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("heads.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"estimate": estimate_text}
    page = environment.get_template("ways.html").render(
        table=table,
        rows=[
            {**row.to_json(), "oracle": row.is_oracle, "difference": _difference(row)} for row in table.rows
        ],
        scores=_SCORES,
        labels=LABELS,
        conditions=list(table.rows[0].conditions),
        forest=forest_chart(
            [(_name(row), *_limits(row)) for row in table.rows],
            label="RSNA score",
            name="ways",
            title="RSNA score of each way and head",
        ),
        data=data_in_words(table.sources),
        phantoms=any(source["phantom"] for source in table.sources),
        phantom=PHANTOM,
    )
    return str(page)


def save_ways(path: StrPath, table: WaysTable) -> None:
    """Write the page of `render_ways` to `path`; its folder is made where it is missing."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_durable(place, render_ways(table).encode(), label="ways")


def _name(row: WayRow) -> str:
    return f"{row.way} {row.head}{' (oracle)' if row.is_oracle else ''}"


def _limits(row: WayRow) -> tuple[float, float, float]:
    found = row.metrics[SCORE]
    return found.value, found.low, found.high


def _difference(row: WayRow) -> dict[str, object] | None:
    found = row.differences.get(SCORE)
    if found is None:
        return None
    return {
        "estimate": found.estimate.to_json(),
        "p": p_value_in_words(row.corrected_p[SCORE], found),
    }
