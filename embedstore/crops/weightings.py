"""T1 or T2: how the slices of a manifest are weighted, by the words or the times that it knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.lumbar.weighting_words import T1, T2, said_weighting

DESCRIPTION = "series_description"
# Milliseconds of spin echo. Between them lies proton density, and gradient echo has short times throughout.
_LONG_ECHO_MS, _SHORT_ECHO_MS = 55.0, 35.0
_STIR_ECHO_MS, _LONG_REPETITION_MS = 40.0, 2500.0


def weightings(table: pa.Table) -> npt.NDArray[np.object_]:
    """Return ``T1``, ``T2`` or ``""`` for each row of a manifest, (n,) object.

    By the column ``series_description`` where it says one of them (T2 or STIR, not both T1 and T2), else by
    ``echo_time_ms`` and ``repetition_time_ms``: an echo of 55 ms or more is T2, as is one from 40 ms on with a
    repetition of 2.5 s or more (STIR); one below 35 ms with a shorter repetition is T1. Unknown otherwise.
    """
    rows = table.num_rows
    words, echoes, repetitions = (
        table.column(name).to_pylist() if name in table.column_names else [None] * rows
        for name in (DESCRIPTION, "echo_time_ms", "repetition_time_ms")
    )
    found = np.empty(rows, object)
    known: dict[tuple[Any, ...], str] = {}
    for row, key in enumerate(zip(words, echoes, repetitions, strict=True)):
        if key not in known:
            known[key] = weighting_of(*key)
        found[row] = known[key]
    return found


def weighting_of(description: str | None, echo_ms: float | None, repetition_ms: float | None) -> str:
    """Return the weighting that one slice's words or times say (`weightings`).

    Examples
    --------
    >>> weighting_of("Sagittal T2/STIR", None, None), weighting_of(None, 12.0, 600.0)
    ('T2', 'T1')
    """
    if said := said_weighting(description or ""):
        return said
    if echo_ms is None or not echo_ms > 0:
        return ""
    long_repetition = repetition_ms is not None and repetition_ms >= _LONG_REPETITION_MS
    if echo_ms >= _LONG_ECHO_MS or (echo_ms >= _STIR_ECHO_MS and long_repetition):
        return T2
    return T1 if echo_ms < _SHORT_ECHO_MS and not long_repetition else ""
