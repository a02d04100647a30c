"""What the units of a run are, whatever encoder saw them: patients, pixels, and the columns that results are split by.

Runs of different stores are compared by it (`heads.comparing`): a unit of one name is the same unit if its images are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.files import sha256_bytes
from embedstore.view import View

# Before the name of a column, which may be that of any other.
SUBGROUP = "subgroup_"


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """The facts about units, as arrays.

    Parameters
    ----------
    row_of
        Unit id -> row.
    content
        (n_units,) str: digest of the unit's images, ``""`` where their pixels are not known.
    columns
        Column -> (n_units,) str, ``""`` where unknown.
    """

    row_of: Mapping[str, int]
    content: npt.NDArray[np.str_]
    columns: Mapping[str, npt.NDArray[np.str_]]


def unit_table(view: View) -> pa.Table:
    """Return a row for each unit of the view, in its order.

    Columns: unit_id, images (their number), content_sha256 (of the sorted digests of its images' decoded pixels; null
    where vectors were imported and no pixel was seen), and ``subgroup_COLUMN`` for each of `View.subgroups`, null where
    unknown.
    """
    subgroups = {
        f"{SUBGROUP}{name}": pa.array([cell or None for cell in cells.tolist()], pa.string())
        for name, cells in view.subgroups.items()
    }
    n = len(view.unit_ids)
    known = not view.identity.declared
    facts = {
        "unit_id": pa.array(view.unit_ids.tolist(), pa.string()),
        "images": pa.array(np.bincount(view.unit_of_image, minlength=n), pa.int64()),
        "content_sha256": pa.array(_content(view) if known else [None] * n, pa.string()),
    }
    return pa.table(facts | subgroups)


def unit_facts(table: pa.Table) -> UnitFacts:
    """Return the facts of `unit_table`."""
    names = [name for name in table.column_names if name.startswith(SUBGROUP)]
    return UnitFacts(
        row_of={unit: row for row, unit in enumerate(table.column("unit_id").to_pylist())},
        content=_text(table, "content_sha256"),
        columns={name.removeprefix(SUBGROUP): _text(table, name) for name in names},
    )


def _content(view: View) -> list[str]:
    digests: list[list[bytes]] = [[] for _ in view.unit_ids]
    for unit, digest in zip(view.unit_of_image.tolist(), view.content_sha256, strict=True):
        digests[unit].append(digest.tobytes())
    return [sha256_bytes(b"".join(sorted(of_unit))) for of_unit in digests]


def _text(table: pa.Table, name: str) -> npt.NDArray[np.str_]:
    return np.array([cell or "" for cell in table.column(name).to_pylist()], np.str_)
