"""What is known of a unit beside its vectors: its file, what kind of images it has, the levels that they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.identity import Identity
from embedstore.inputs.shown_levels import ShownLevels, crops_of_targets, shown_levels
from embedstore.queries.load_view import KINDS
from embedstore.queries.manifest_columns import column_text
from embedstore.view import Units


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """What is known of a unit beside its vectors.

    Parameters
    ----------
    path
        Its first file.
    image_id
        The store's id of that image; None where no store holds its pixels.
    partial
        Whether images of the unit are not part of the answer.
    kinds
        Column (``modality``, ``body_part``) -> what its images are, unknown ones left out.
    levels
        Of crops, the levels that they show; None of whole images.
    crops
        Of crops, those that speak for each target (`embedstore.inputs.shown_levels.crops_of_targets`).
    """

    path: str
    image_id: str | None
    partial: bool = False
    kinds: Mapping[str, frozenset[str]] = field(default_factory=dict)
    levels: ShownLevels | None = None
    crops: Sequence[Sequence[Mapping[str, Any]]] | None = None


def facts_of_units(
    units: Units,
    *,
    paths: Sequence[str],
    stored_ids: Sequence[str],
    table: pa.Table,
    partial: Sequence[bool],
) -> list[UnitFacts]:
    """Return the facts of each unit: those of its first image, and the kinds and levels of all.

    Parameters
    ----------
    units
        The units.
    paths, stored_ids
        Of each image.
    table
        Rows of a manifest, of each image.
    partial
        Of each unit.
    """
    n_units = len(units.unit_ids)
    kinds = kinds_of(table)
    levels = shown_levels(table, units.unit_of_image, n_units)
    crops = crops_of_targets(
        table, units.image_ids.tolist(), units.unit_of_image, units.image_of_target, n_units
    )
    rows = [np.flatnonzero(units.unit_of_image == unit).tolist() for unit in range(n_units)]
    return [
        UnitFacts(
            path=paths[own[0]],
            image_id=stored_ids[own[0]] or None,
            partial=partial[unit],
            kinds={
                column: frozenset(cells[row] for row in own if cells[row]) for column, cells in kinds.items()
            },
            levels=levels[unit],
            crops=None if crops is None else crops[unit],
        )
        for unit, own in enumerate(rows)
    ]


def kinds_of(table: pa.Table) -> dict[str, list[str]]:
    """Return column -> what each row of a manifest says of the kind of image, ``""`` where it says nothing."""
    return {column: column_text(table, column).tolist() for column in KINDS}


def with_levels(answer: Mapping[str, Any], facts: UnitFacts, identity: Identity) -> dict[str, Any]:
    """Return an answer from crops with how sure their levels are, and the crops behind each target.

    Parameters
    ----------
    answer
        As `heads.runs.answers.predict_units`; one from whole images stays as it is.
    facts
        Of its unit.
    identity
        Of the vectors, which names the localiser.
    """
    if facts.levels is None:
        return dict(answer)
    localiser = (identity.crop or {}).get("localiser_sha256")
    targets = answer["targets"]
    if facts.crops is not None:
        targets = {
            name: {**of_target, "crops": list(crops)}
            for (name, of_target), crops in zip(targets.items(), facts.crops, strict=True)
        }
    return {
        **answer,
        "targets": targets,
        "level_unsure": facts.levels.unsure,
        "localisation": facts.levels.to_json() | {"localiser": localiser},
    }
