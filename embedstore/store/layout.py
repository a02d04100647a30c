"""Names, content of documents and byte layout of a store: the one place that knows them.

Every JSON document carries the SHA-256 of its own content, ``store.json`` lists that of every ``part.json``, which
holds that of its manifest; receipts hold those of the arrays: any edit is noticed. See docs/store-format.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
import numpy.typing as npt

from embedstore.identity import ROW_DIMENSION, VECTOR_DIMENSION, Identity, identity_from_json

FORMAT = "embedstore"
FORMAT_VERSION = 3
# Version 2 lacks what is optional in version 3, and is read as it is.
OLDEST_READ = 2
STORE_FILE = "store.json"
PART_NAME = "part"
MANIFEST_NAME = "manifest"
ZARR_FILE = "zarr.json"
LOCK_FILE = "writer.lock"
WORKERS_FOLDER = "workers"
SET_ASIDE_FOLDER = "set-aside"
VECTORS = "vectors"
CONTENT = "content"
CONTENT_BYTES = 32
CRC_BYTES = 4
_OF_A_KEY = ("key_fingerprint", "hides_paths")  # not written where there is no key
STORE_DTYPES: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
# A chunk is written, synced and held in memory whole: 16 MiB of its largest array, and few rows to lose by a crash.
CHUNK_BYTES = 16 * 2**20
MAX_CHUNK_ROWS = 256


@dataclass(frozen=True)
class ArrayPlan:
    """One array of a part.

    Parameters
    ----------
    row_shape
        Shape of one row: ``(1152,)`` for a vector.
    dtype
        ``float16`` or ``float32``; ``uint8`` for the digests of pixels.
    dimensions
        A name for each axis of a row.
    row
        What a row is, in words.
    """

    row_shape: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]
    row: str

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype on disk, little-endian."""
        return STORE_DTYPES.get(self.dtype, np.dtype(self.dtype))

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.row_shape) * self.numpy_dtype.itemsize

    @property
    def fill(self) -> float:
        """What stands in rows without a value: NaN, or 0 where there is none."""
        return float("nan") if self.dtype in STORE_DTYPES else 0

    @property
    def dimension_names(self) -> tuple[str, ...]:
        """Names of all axes, that of the rows first."""
        return (ROW_DIMENSION, *self.dimensions)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Build a plan from its JSON; raises KeyError, TypeError or ValueError if damaged."""
        row_shape, dimensions = (
            tuple(map(int, document["row_shape"])),
            tuple(map(str, document["dimensions"])),
        )
        plan = cls(**{**document, "row_shape": row_shape, "dimensions": dimensions})
        if plan.dtype not in STORE_DTYPES or len(row_shape) != len(dimensions):
            raise ValueError(f"not an array: {document}")
        return plan


CONTENT_PLAN = ArrayPlan((CONTENT_BYTES,), "uint8", ("digest_byte",), "SHA-256 of the image's decoded pixels")


def planned_arrays(identity: Identity, dtype: str) -> dict[str, ArrayPlan]:
    """Return the arrays of a part whose rows are `identity`: the vectors first, further ones by name."""
    vectors = ArrayPlan((identity.dim,), dtype, (VECTOR_DIMENSION,), "vector, un-normalised")
    further = {name: identity.arrays[name] for name in sorted(identity.arrays)}
    return {VECTORS: vectors} | {
        name: ArrayPlan(spec.row_shape, dtype, spec.dimensions, spec.row) for name, spec in further.items()
    }


def default_chunk_rows(arrays: Mapping[str, ArrayPlan]) -> int:
    """Return the rows of a chunk that keep its largest array at about `CHUNK_BYTES`, 1 to `MAX_CHUNK_ROWS`.

    Examples
    --------
    >>> default_chunk_rows({"vectors": ArrayPlan((1152,), "float16", ("feature",), "vector")})
    256
    """
    largest = max(array.row_bytes for array in arrays.values())
    return min(max(CHUNK_BYTES // largest, 1), MAX_CHUNK_ROWS)


@dataclass(frozen=True)
class Revision:
    """What changed when a data set's facts about a part's rows were taken over once more.

    Parameters
    ----------
    before, after
        Digests of ``manifest.parquet``.
    columns
        Column -> rows whose cell changed.
    added, dropped
        Columns that came and went.
    revised
        UTC time in ISO 8601.
    """

    before: str
    after: str
    columns: Mapping[str, int]
    added: tuple[str, ...]
    dropped: tuple[str, ...]
    revised: str

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Build a revision from its JSON; raises KeyError, TypeError or ValueError if damaged."""
        columns = {str(name): int(rows) for name, rows in document["columns"].items()}
        names = {key: tuple(map(str, document[key])) for key in ("added", "dropped")}
        return cls(**{**document, "columns": columns, **names})


@dataclass(frozen=True)
class PartPlan:
    """What one ``extract`` call planned; only the facts about its rows are ever revised.

    Parameters
    ----------
    number
        Number of the part, from 0.
    rows, chunk_rows
        Rows of every array, and rows of a chunk.
    arrays
        The arrays that hold what the encoder gave: ``vectors``, and further ones by name.
    manifest_sha256
        Digest of ``manifest.parquet``.
    tables
        Name -> digest of further Parquet files of the part (label coordinates and the like).
    dataset, root
        Reader, and folder seen from the store's own; a pseudonym where paths are hidden. For information.
    created
        UTC time in ISO 8601.
    identity
        A copy of the store's identity, from which a damaged ``store.json`` is healed.
    phantom
        Whether the images are drawn by a computer and show no patient; for information.
    revisions
        How the manifest came to be what it is, oldest first.
    key_fingerprint, hides_paths
        Of the key behind the ids, ``""`` where there is none or nobody noted it; whether the manifest has no paths.
    """

    number: int
    rows: int
    chunk_rows: int
    arrays: Mapping[str, ArrayPlan]
    manifest_sha256: str
    tables: Mapping[str, str]
    dataset: str
    root: str
    created: str
    identity: Identity
    phantom: bool = False
    revisions: tuple[Revision, ...] = ()
    key_fingerprint: str = ""
    hides_paths: bool = False

    CIRCUMSTANCES = ("created", "root")

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.rows // self.chunk_rows)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Return first row and end (excluded) of a chunk."""
        return chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows)

    @property
    def vectors(self) -> ArrayPlan:
        """The array of the vectors."""
        return self.arrays[VECTORS]

    @cached_property
    def stored_arrays(self) -> dict[str, ArrayPlan]:
        """Every array on disk in the order in which a chunk is written: `arrays`, then the pixels' digests."""
        return {**self.arrays, CONTENT: CONTENT_PLAN}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values; without what is optional and absent."""
        document = asdict(self) | {"identity": self.identity.to_json(), "tables": dict(self.tables)}
        revisions = [
            entry | {"added": list(entry["added"]), "dropped": list(entry["dropped"])}
            for entry in document.pop("revisions")
        ]
        document |= {"revisions": revisions} if revisions else {}
        return {name: entry for name, entry in document.items() if entry or name not in _OF_A_KEY}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], *, source: str) -> Self:
        """Build a plan from `to_json`; raises TypeError, KeyError, AttributeError or ValueError if damaged."""
        identity = identity_from_json(document["identity"], source=source)
        arrays = {name: ArrayPlan.from_json(entry) for name, entry in document["arrays"].items()}
        wanted = {VECTORS: (identity.dim,)} | {name: spec.row_shape for name, spec in identity.arrays.items()}
        if (found := {name: array.row_shape for name, array in arrays.items()}) != wanted:
            raise ValueError(f"arrays must be those of its identity, {wanted}; found {found}")
        revisions = tuple(map(Revision.from_json, document.get("revisions", ())))
        return cls(**{**document, "identity": identity, "arrays": arrays, "revisions": revisions})


@dataclass(frozen=True)
class StoreLayout:
    """Where everything in the store at `root` lies."""

    root: Path

    @property
    def store_file(self) -> Path:
        """``store.json``."""
        return self.root / STORE_FILE

    @property
    def lock_file(self) -> Path:
        """``writer.lock``."""
        return self.root / LOCK_FILE

    @property
    def workers(self) -> Path:
        """Folder of the locks of workers that write at the same time."""
        return self.root / WORKERS_FOLDER

    @property
    def tasks(self) -> Path:
        """Folder of the tasks."""
        return self.root / "tasks"

    def part(self, number: int, revision: int = 0) -> PartLayout:
        """Where part `number` lies, and its documents of a revision."""
        return PartLayout(self.root / "parts" / f"{number:04d}", revision)


@dataclass(frozen=True)
class PartLayout:
    """Where everything in a part at `folder` lies; plan and manifest have a name for each revision."""

    folder: Path
    revision: int = 0

    @property
    def plan_file(self) -> Path:
        """``part.json``, of the first revision ``part.1.json``, and so on."""
        return self.folder / f"{PART_NAME}{self._suffix}.json"

    @property
    def manifest(self) -> Path:
        """``manifest.parquet``, of the first revision ``manifest.1.parquet``, and so on."""
        return self.folder / f"{MANIFEST_NAME}{self._suffix}.parquet"

    @property
    def _suffix(self) -> str:
        return f".{self.revision}" if self.revision else ""

    @property
    def receipts(self) -> Path:
        """Folder of the receipts."""
        return self.folder / "receipts"

    def table(self, name: str) -> Path:
        """Return the path of a further table."""
        return self.folder / "tables" / f"{name}.parquet"

    def receipt(self, chunk: int) -> Path:
        """Return the path of a chunk's receipt."""
        return Path(f"{self.folder}/receipts/{chunk:06d}.json")

    def array(self, name: str) -> Path:
        """Folder of the Zarr array `name`."""
        return self.folder / name

    def metadata(self, name: str) -> Path:
        """``zarr.json`` of the Zarr array `name`."""
        return self.folder / name / ZARR_FILE

    @property
    def group_metadata(self) -> Path:
        """``zarr.json`` of the part, which is a Zarr group."""
        return self.folder / ZARR_FILE

    def chunk(self, name: str, array: ArrayPlan, chunk: int) -> Path:
        """Return the path of a chunk's file in the Zarr array `name`, whose plan is `array`."""
        return Path(self.chunk_name(name, array, chunk))

    def chunk_name(self, name: str, array: ArrayPlan, chunk: int) -> str:
        """Return `chunk` as text: opening a store asks for every chunk, and a Path costs more than its stat."""
        return f"{self.folder}/{name}/c/{chunk}{'/0' * len(array.row_shape)}"


def crc32c(array: npt.NDArray[Any]) -> int:
    """Return the CRC-32C (Castagnoli) of an array's bytes in C order."""
    return int(google_crc32c.value(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))


def encode_chunk(rows: npt.NDArray[Any], array: ArrayPlan, *, chunk_rows: int) -> bytes:
    """Encode rows as one Zarr v3 chunk: codecs ``bytes`` (little-endian) and ``crc32c``.

    Parameters
    ----------
    rows
        (n, *row shape) of the array's dtype; n up to `chunk_rows`.
    array
        The array's plan.
    chunk_rows
        Rows of a full chunk; a shorter last chunk is padded with the fill value, as Zarr does.
    """
    if len(rows) < chunk_rows:
        padded = np.full((chunk_rows, *array.row_shape), array.fill, dtype=array.numpy_dtype)
        padded[: len(rows)] = rows
        rows = padded
    return np.ascontiguousarray(rows).tobytes() + crc32c(rows).to_bytes(CRC_BYTES, "little")
