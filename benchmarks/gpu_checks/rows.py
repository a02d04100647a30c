"""Finished rows in a file of JSON lines: one line each, on the disk before the next measurement begins."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]

CPU = "cpu"


class RowFile:
    """Rows of one run.

    Parameters
    ----------
    path
        JSON lines; each names its ``section`` and the ``device`` that computed it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row and wait until the disk has it; then print it.

        Raises
        ------
        ValueError
            If a number is NaN or infinite; nothing is written then.
        """
        line = json.dumps(dict(row), allow_nan=False) + "\n"
        self._drop_a_cut_line()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        print(line, end="", flush=True)

    def _drop_a_cut_line(self) -> None:
        """Remove the beginning of a row whose writer was killed, so that the next one has a line of its own."""
        whole = self.path.read_bytes() if self.path.exists() else b""
        finished = whole.rfind(b"\n") + 1
        if finished < len(whole):
            os.truncate(self.path, finished)

    def read(self) -> list[Row]:
        """Return the rows so far (`read_rows`)."""
        return read_rows(self.path)


def read_rows(path: Path) -> list[Row]:
    """Return the finished rows of a file; a last line without its end was cut, and is left out.

    Raises
    ------
    ValueError
        If a finished line is no row.
    """
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        row = json.loads(line)
        if not isinstance(row, dict) or not {"section", "device"} <= row.keys():
            raise ValueError(
                f"line {number} of {path} must be a row with 'section' and 'device'; found {line!r}"
            )
        rows.append(row)
    return rows


def ceiling_flops(rows: list[Row], dtype: str) -> float | None:
    """Return the fastest matrix product of this run, operations per second; None before one was measured."""
    found = [
        row["TFLOP/s"] * 1e12
        for row in rows
        if row["section"] == "ceiling" and row["dtype"] == dtype and row["TFLOP/s"] is not None
    ]
    return max(found, default=None)
