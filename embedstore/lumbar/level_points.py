"""Where the levels of each study are: one row per point, in patient millimetres."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import Advice, DataError, UsageError, first_few
from embedstore.files import StrPath, canonical_json, sha256_bytes, table_of_parquet, write_table_durable
from embedstore.lumbar.levels import LEVELS

STRUCTURES = ("canal", "left_foramen", "right_foramen", "left_subarticular", "right_subarticular")
SAGITTAL_STRUCTURES = STRUCTURES[:3]
# Discs of a spine with six or four lumbar vertebrae, which the competition has no names for.
SIX_LEVELS = (*LEVELS[:4], "l5_l6", "l6_s1")
FOUR_LEVELS = (*LEVELS[:3], "l4_s1")
ALL_LEVELS = (*LEVELS, *SIX_LEVELS[4:], *FOUR_LEVELS[3:])
ORIGINS = ("oracle", "localised")
LEVELS_FILE = "levels.parquet"
_META = b"embedstore_levels"
_SCHEMA = pa.schema(
    [
        ("study_id", pa.string()),
        ("structure", pa.string()),
        ("level", pa.string()),
        *((f"{axis}_mm", pa.float64()) for axis in "xyz"),
        ("series_id", pa.string()),
        ("confidence", pa.float64()),
        ("unsure", pa.bool_()),
    ]
)

Texts = npt.NDArray[np.object_]


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelPoints:
    """Points of levels; every array is (n,) but for `xyz_mm`.

    Parameters
    ----------
    study_ids
        object array of str.
    structures
        object array of `STRUCTURES`; ``canal`` is the canal at a disc.
    levels
        object array of `embedstore.lumbar.levels.LEVELS`, or of `SIX_LEVELS` or `FOUR_LEVELS` in a spine with
        a lumbar vertebra more or less.
    xyz_mm
        (n, 3) float64 DICOM patient coordinates: x to the left, y to the back, z to the head.
    series_ids
        object array of str: the series in which the point was placed; ``""`` if it was projected from another one.
    confidence
        float64 in [0, 1]: that the names of the study's levels are right; NaN for oracle points.
    unsure
        bool: the study's levels may bear the wrong names, or its spine does not have five lumbar vertebrae.
    origin
        ``oracle``: placed by readers who saw the images, which no new study has; ``localised``: found.
    digest
        SHA-256 that names the localiser's run, or of the points themselves where they are oracle.
    left_out
        Why points were left out -> how many.

    Raises
    ------
    DataError
        If lengths differ, a structure, level or origin is unknown, a coordinate is no number, a confidence lies outside
        0 to 1, or a study has a structure twice at one level.
    """

    study_ids: Texts
    structures: Texts
    levels: Texts
    xyz_mm: npt.NDArray[np.float64]
    series_ids: Texts
    confidence: npt.NDArray[np.float64]
    unsure: npt.NDArray[np.bool_]
    origin: str
    digest: str
    left_out: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        n = len(self.study_ids)
        shapes = {
            "structures": (self.structures, (n,)),
            "levels": (self.levels, (n,)),
            "xyz_mm": (self.xyz_mm, (n, 3)),
            "series_ids": (self.series_ids, (n,)),
            "confidence": (self.confidence, (n,)),
            "unsure": (self.unsure, (n,)),
        }
        for name, (array, wanted) in shapes.items():
            if array.shape != wanted:
                raise DataError(f"level points: {name} must have shape {wanted}; found {array.shape}")
        _require_among("structure", self.structures, STRUCTURES)
        _require_among("level", self.levels, ALL_LEVELS)
        _require_among("origin", [self.origin], ORIGINS)
        if not np.isfinite(self.xyz_mm).all():
            raise DataError("level points: every coordinate must be a finite number of millimetres")
        outside = (self.confidence < 0) | (self.confidence > 1)  # NaN is neither
        if outside.any():
            raise DataError(
                f"level points: confidence must be from 0 to 1; found {self.confidence[outside][0]:g}"
            )
        _require_once(self)

    def __len__(self) -> int:
        return len(self.study_ids)

    @property
    def studies(self) -> list[str]:
        """The studies that have points, in order of first appearance."""
        return list(dict.fromkeys(self.study_ids.tolist()))

    def take(self, rows: npt.ArrayLike) -> LevelPoints:
        """Return the rows of these numbers or of this mask, in that order."""
        chosen = np.asarray(rows)
        chosen = chosen if chosen.dtype == bool else chosen.astype(np.int64)
        return LevelPoints(
            study_ids=self.study_ids[chosen],
            structures=self.structures[chosen],
            levels=self.levels[chosen],
            xyz_mm=self.xyz_mm[chosen],
            series_ids=self.series_ids[chosen],
            confidence=self.confidence[chosen],
            unsure=self.unsure[chosen],
            origin=self.origin,
            digest=self.digest,
            left_out=self.left_out,
        )

    def of_study(self, study_id: str) -> LevelPoints:
        """Return the points of one study; none if it is unknown."""
        return self.take(self.study_ids == study_id)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one mapping per point, for `points_from_rows`."""
        return [
            {
                "study_id": study,
                "structure": structure,
                "level": level,
                "xyz_mm": xyz,
                "series_id": series,
                "confidence": confidence,
                "unsure": unsure,
            }
            for study, structure, level, xyz, series, confidence, unsure in zip(
                self.study_ids.tolist(),
                self.structures.tolist(),
                self.levels.tolist(),
                self.xyz_mm,
                self.series_ids.tolist(),
                self.confidence.tolist(),
                self.unsure.tolist(),
                strict=True,
            )
        ]

    def to_table(self) -> pa.Table:
        """Return the points as an Arrow table, with origin and digest in the schema's metadata."""
        said = {"origin": self.origin, "digest": self.digest, "left_out": dict(self.left_out)}
        columns = [
            self.study_ids,
            self.structures,
            self.levels,
            *self.xyz_mm.T,
            self.series_ids,
            self.confidence,
            self.unsure,
        ]
        arrays = [
            pa.array(column, kind.type, from_pandas=False)
            for column, kind in zip(columns, _SCHEMA, strict=True)
        ]
        return pa.table(arrays, schema=_SCHEMA.with_metadata({_META: canonical_json(said)}))

    @classmethod
    def from_table(cls, table: pa.Table, *, source: str = "the table") -> LevelPoints:
        """Build the points from `to_table`.

        Raises
        ------
        DataError
            If a column or the metadata is missing, or a cell is empty or impossible.
        """
        try:
            said = json.loads((table.schema.metadata or {})[_META])
            origin, digest, left_out = said["origin"], said["digest"], said["left_out"]
            cells = {name: table.column(name).cast(_SCHEMA.field(name).type) for name in _SCHEMA.names}
        except (KeyError, ValueError, TypeError, pa.ArrowException) as error:
            raise DataError(
                f"{source}: is no table of level points ({error}); found columns {table.column_names}",
                advice=Advice.LOCALISE,
            ) from error
        if empty := [name for name, column in cells.items() if column.null_count]:
            raise DataError(f"{source}: column {empty[0]!r} has empty cells; every point needs all columns")
        texts = {
            name: np.array(cells[name].to_pylist(), object)
            for name in ("study_id", "structure", "level", "series_id")
        }
        return cls(
            study_ids=texts["study_id"],
            structures=texts["structure"],
            levels=texts["level"],
            xyz_mm=np.stack([np.asarray(cells[f"{axis}_mm"], np.float64) for axis in "xyz"], axis=1),
            series_ids=texts["series_id"],
            confidence=np.array(cells["confidence"], np.float64),
            unsure=np.array(cells["unsure"].to_pylist(), bool),
            origin=str(origin),
            digest=str(digest),
            left_out=MappingProxyType({str(why): int(count) for why, count in left_out.items()}),
        )

    def save(self, path: StrPath) -> None:
        """Write the points as Parquet, whole or not at all."""
        write_table_durable(Path(path), self.to_table(), label="levels")

    @classmethod
    def load(cls, path: StrPath) -> LevelPoints:
        """Read the points of a file that `save` wrote.

        Raises
        ------
        DataError
            If there is no such file, or it holds something else.
        """
        try:
            payload = Path(path).read_bytes()
            table = table_of_parquet(payload)
        except FileNotFoundError as error:
            raise DataError(f"{path}: there is no such file", advice=Advice.LOCALISE) from error
        except pa.ArrowException as error:
            raise DataError(f"{path}: must be Parquet; found something else ({error})") from error
        return cls.from_table(table, source=str(path))


def points_from_rows(
    rows: Sequence[Mapping[str, Any]], *, origin: str, digest: str | None, left_out: Mapping[str, int]
) -> LevelPoints:
    """Build points from one mapping per point.

    Parameters
    ----------
    rows
        ``study_id``, ``structure``, ``level``, ``xyz_mm`` (3,), ``series_id``, ``confidence``, ``unsure`` of each.
    digest
        None for that of the points themselves.
    """
    texts = {
        name: np.array([row[name] for row in rows], object)
        for name in ("study_id", "structure", "level", "series_id")
    }
    xyz_mm = np.array([row["xyz_mm"] for row in rows], np.float64).reshape(-1, 3)
    if digest is None:
        named = [column.tolist() for column in texts.values()]
        digest = sha256_bytes(canonical_json([*named, xyz_mm.tolist()]))
    return LevelPoints(
        study_ids=texts["study_id"],
        structures=texts["structure"],
        levels=texts["level"],
        xyz_mm=xyz_mm,
        series_ids=texts["series_id"],
        confidence=np.array([row["confidence"] for row in rows], np.float64),
        unsure=np.array([row["unsure"] for row in rows], bool),
        origin=origin,
        digest=digest,
        left_out=MappingProxyType(dict(left_out)),
    )


def _require_among(what: str, cells: npt.NDArray[np.object_] | Sequence[str], known: Sequence[str]) -> None:
    foreign = set(cells) - set(known)
    if foreign:
        found = first_few(map(repr, sorted(map(str, foreign))))
        raise DataError(f"level points: {what} must be one of {', '.join(known)}; found {found}")


def _require_once(points: LevelPoints) -> None:
    seen: set[tuple[str, str, str]] = set()
    for key in zip(points.study_ids, points.structures, points.levels, strict=True):
        if key in seen:
            raise DataError(f"level points: study {key[0]!r} has {key[1]} at {key[2]} twice; once is allowed")
        seen.add(key)


def require_localised(points: LevelPoints, *, holder: str) -> None:
    """Refuse oracle points where a new study must be answered; raises UsageError."""
    if points.origin != "localised":
        raise UsageError(
            f"{holder} holds oracle points, placed by readers who saw these images, and new studies have none",
            advice=Advice.LOCALISE,
        )
