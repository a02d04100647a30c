"""Metadata that a run's head needs beside the vectors: from a store's table, or as COLUMN=VALUE of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cli.notify import Notify
from embedstore.errors import UsageError
from embedstore.queries.derived_columns import PLACE_SOURCES
from embedstore.view import PLACE, Units
from heads.runs.run import Run


def metadata_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """Return column -> value of ``COLUMN=VALUE`` pairs.

    Raises
    ------
    UsageError
        If one is no pair, or names a column that was named before.
    """
    given: dict[str, str] = {}
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--with takes COLUMN=VALUE; found {pair!r}")
        if column in given:
            raise UsageError(f"--with {column} is given twice")
        given[column] = value
    return given


def require_wanted(run: Run, given: Mapping[str, str]) -> None:
    """Refuse values of columns that the run's head does not get; raises UsageError."""
    blocks = run.predictor.blocks
    wanted = () if blocks is None else blocks.columns
    for column, value in given.items():
        if column not in wanted:
            raise UsageError(
                f"--with {column}={value}: the head of run {run.folder} gets "
                f"{', '.join(wanted) or 'no metadata'}"
            )


def require_metadata(run: Run, present: Sequence[str], *, what: str) -> None:
    """Refuse inputs that lack a column that the run's head needs.

    Parameters
    ----------
    run
        The loaded run.
    present
        Columns that are there, or were given.
    what
        What lacks the others, for the message.

    Raises
    ------
    UsageError
        With the columns and the levels that the head knows.
    """
    if PLACE in run.predictor.columns and PLACE not in present:
        raise UsageError(
            f"run {run.folder} was fitted with the place of every image ({PLACE}), and {what}; it follows from "
            f"{', '.join(PLACE_SOURCES)}: extract from DICOM files, or give a store that was extracted from them"
        )
    blocks = run.predictor.blocks
    if blocks is None:
        return
    for column, levels in zip(blocks.columns, blocks.levels, strict=True):
        if column not in present:
            raise UsageError(
                f"--with {column}=VALUE is needed: the head of run {run.folder} was fitted with {column}, and {what}; "
                f"known values: {', '.join(level or 'nothing (unknown)' for level in levels)}"
            )


def with_metadata(run: Run, units: Units, given: Mapping[str, str], *, notify: Notify) -> Units:
    """Return `units` with the given values for all images; tell `notify` which values the head never saw."""
    same = {column: np.full(len(units.image_ids), value) for column, value in given.items()}
    units = replace(units, metadata={**units.metadata, **same})
    blocks = run.predictor.blocks
    for column, values in (blocks.unseen(units.metadata) if blocks else {}).items():
        notify(
            f"{column}: {', '.join(map(repr, values))} not among the images that the head was fitted on; taken "
            "for none of its values"
        )
    return units
