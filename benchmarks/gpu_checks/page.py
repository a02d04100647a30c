"""Rows of a GPU as Markdown tables, printed or put into a page between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_checks.rows import CPU, Row

BEGIN = "<!-- on_gpu: begin -->"
END = "<!-- on_gpu: end -->"
_TITLES = {
    "tests": "Tests that need a GPU",
    "ceiling": "Matrix products: the ceiling",
    "layers": "Matrix products in the shape of the towers' layers",
    "towers": "Towers as an extraction runs them",
    "end to end": "End to end: PNG files to committed rows",
    "heads": "Heads",
    "fine-tuning": "Fine-tuning: steps with and without a prefix cache, and LoRA",
    "sweep": "Towers in other ways",
    "fp8": "fp8, an experiment: no vector is stored from it",
    "run": "The run",
}


def tables(rows: Sequence[Row]) -> str:
    """Return the tables of a run on a GPU.

    Raises
    ------
    ValueError
        If the rows are not headed by a card, or hold what a CPU computed where only a card may stand.
    """
    heading = rows[0] if rows else {}
    card = heading.get("device", CPU)
    if heading.get("section") != "machine" or card == CPU:
        raise ValueError(f"only rows of a GPU stand in this table; the file's device is {card!r}")
    strangers = {row["device"] for row in rows if row["section"] != "heads"} - {card}
    if strangers:
        raise ValueError(
            f"the run's card is {card!r}; other devices' rows are among them: {sorted(strangers)}"
        )
    lines = [f"{card} ({heading['what']})"]
    for section in sorted({row["section"] for row in rows} - {"machine"}, key=list(_TITLES).index):
        lines += ["", f"**{_TITLES[section]}**", "", *_table(section, rows)]
    return "\n".join(lines)


def put_into(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page.

    Raises
    ------
    ValueError
        If the page lacks the marks.
    """
    whole = page.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} must hold {BEGIN} and {END}; it does not")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _table(section: str, rows: Sequence[Row]) -> list[str]:
    ours = [row for row in rows if row["section"] == section]
    hidden = {"section"} if section == "heads" else {"section", "device"}
    names = [name for name in dict.fromkeys(name for row in ours for name in row) if name not in hidden]
    # A note is long; it comes last.
    names.sort(key=lambda name: name == "note")
    body = ["| " + " | ".join(_text(row.get(name)) for name in names) + " |" for row in ours]
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *body]


def _text(entry: Any) -> str:
    if entry is None:
        return ""
    if isinstance(entry, float):
        return f"{entry:,.3f}" if abs(entry) < 10 else f"{entry:,.1f}"
    return str(entry).replace("|", "\\|").replace("\n", " ")
