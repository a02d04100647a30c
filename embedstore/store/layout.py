"""Names, documents and byte layout of a store: the one place that knows them.

Every JSON document carries the SHA-256 of its own content, ``store.json`` lists the digest of every
``part.json``, which holds the digest of its manifest; receipts hold the digests of the vectors. So an
edit anywhere is noticed. See docs/store-format.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
import numpy.typing as npt

from embedstore.errors import Advice, CorruptStore, DataError, Reason, StoreError
from embedstore.files import content_sha256, sealed, write_durable
from embedstore.identity import Identity, identity_from_json

FORMAT = "embedstore"
FORMAT_VERSION = 1
STORE_FILE = "store.json"
PART_FILE = "part.json"
MANIFEST_FILE = "manifest.parquet"
LOCK_FILE = "writer.lock"
WORKERS_FOLDER = "workers"
SET_ASIDE_FOLDER = "set-aside"
VECTORS = "vectors"
CONTENT = "content"
CONTENT_BYTES = 32
CRC_BYTES = 4
STORE_DTYPES: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
DEFAULT_CHUNK_ROWS = 256


@dataclass(frozen=True)
class Failure:
    """A row without a vector: its place in the part, the reason code, and a line for people."""

    row: int
    reason: Reason
    message: str


@dataclass(frozen=True)
class Receipt:
    """Proof that a chunk is finished.

    Parameters
    ----------
    chunk
        Number of the chunk in its part.
    start, stop
        Rows of the part, `stop` excluded.
    vectors_sha256, content_sha256
        Digest of the bytes of the rows that have a vector, in row order, little-endian.
    vectors_crc32c
        CRC-32C of the same vector bytes; cheap enough to be checked at every load.
    failures
        The rows without a vector.
    rounding_error
        Largest absolute difference between a computed value and the stored one.
    series_ranges
        Values that became 0 and 255, for each MR series with a row in this chunk.
    seconds, finished, host, device, versions
        Circumstances: they vary between runs and say nothing about the vectors.
    """

    chunk: int
    start: int
    stop: int
    vectors_sha256: str
    vectors_crc32c: int
    content_sha256: str
    failures: tuple[Failure, ...]
    rounding_error: float
    series_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seconds: float = 0.0
    finished: str = ""
    host: str = ""
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    CIRCUMSTANCES = ("seconds", "finished", "host", "device", "versions")

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as plain JSON values."""
        return asdict(self) | {
            "failures": [asdict(failure) for failure in self.failures],
            "series_ranges": {name: list(limits) for name, limits in self.series_ranges.items()},
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Build a receipt from `to_json`; raises KeyError, TypeError or ValueError if damaged."""
        failures = tuple(
            Failure(int(entry["row"]), Reason(entry["reason"]), str(entry["message"]))
            for entry in document["failures"]
        )
        ranges = {name: (float(low), float(high)) for name, (low, high) in document["series_ranges"].items()}
        return cls(**{**document, "failures": failures, "series_ranges": ranges})


@dataclass(frozen=True)
class PartPlan:
    """What one ``extract`` call planned; written once, never changed.

    Parameters
    ----------
    number
        Number of the part, from 0.
    rows, chunk_rows, dim, dtype
        Shape of the vectors, rows of a chunk, and store dtype (``float16`` or ``float32``).
    manifest_sha256
        Digest of ``manifest.parquet``.
    tables
        Name -> digest of further Parquet files of the part (label coordinates and the like).
    dataset, root
        Reader and folder that the records came from; for information.
    created
        UTC time in ISO 8601.
    identity
        A copy of the store's identity, from which a damaged ``store.json`` is healed.
    phantom
        Whether the images are drawn by a computer and show no patient; for information.
    """

    number: int
    rows: int
    chunk_rows: int
    dim: int
    dtype: str
    manifest_sha256: str
    tables: Mapping[str, str]
    dataset: str
    root: str
    created: str
    identity: Identity
    phantom: bool = False

    CIRCUMSTANCES = ("created",)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.rows // self.chunk_rows)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Return first row and end (excluded) of a chunk."""
        return chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return asdict(self) | {"identity": self.identity.to_json(), "tables": dict(self.tables)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], *, source: str) -> Self:
        """Build a plan from what `to_json` returned; raises TypeError, KeyError or DataError if damaged."""
        identity = identity_from_json(document["identity"], source=source)
        return cls(**{**document, "identity": identity})


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

    def part(self, number: int) -> PartLayout:
        """Where part `number` lies."""
        return PartLayout(self.root / "parts" / f"{number:04d}")


@dataclass(frozen=True)
class PartLayout:
    """Where everything in a part at `folder` lies."""

    folder: Path

    @property
    def plan_file(self) -> Path:
        """``part.json``."""
        return self.folder / PART_FILE

    @property
    def manifest(self) -> Path:
        """``manifest.parquet``."""
        return self.folder / MANIFEST_FILE

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

    def chunk(self, name: str, chunk: int) -> Path:
        """Return the path of a chunk's file in the Zarr array `name`."""
        return Path(self.chunk_name(name, chunk))

    def chunk_name(self, name: str, chunk: int) -> str:
        """Return `chunk` as text: opening a store asks for every chunk, and a Path costs more than its stat."""
        return f"{self.folder}/{name}/c/{chunk}/0"


def crc32c(array: npt.NDArray[Any]) -> int:
    """Return the CRC-32C (Castagnoli) of an array's bytes in C order."""
    return int(google_crc32c.value(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))


def encode_chunk(rows: npt.NDArray[Any], *, chunk_rows: int, fill: float) -> bytes:
    """Encode rows as one Zarr v3 chunk: codecs ``bytes`` (little-endian) and ``crc32c``.

    Parameters
    ----------
    rows
        (n, width) of a little-endian dtype; n up to `chunk_rows`.
    chunk_rows
        Rows of a full chunk; a shorter last chunk is padded with `fill`, as Zarr does.
    fill
        The array's fill value.
    """
    if len(rows) < chunk_rows:
        padded = np.full((chunk_rows, rows.shape[1]), fill, dtype=rows.dtype)
        padded[: len(rows)] = rows
        rows = padded
    return np.ascontiguousarray(rows).tobytes() + crc32c(rows).to_bytes(CRC_BYTES, "little")


def write_document(path: Path, document: Mapping[str, Any], *, label: str) -> str:
    """Write a JSON document with the digest of its own content, durably; return that digest."""
    with_digest = sealed(document)
    text = json.dumps(with_digest, indent=1, ensure_ascii=False, allow_nan=False)
    write_durable(path, (text + "\n").encode(), label=label)
    return str(with_digest["sha256"])


def read_document(path: Path) -> tuple[dict[str, Any], str]:
    """Read a document that `write_document` wrote; return its content and digest.

    Raises
    ------
    CorruptStore
        If the file is missing, is no JSON object, or its content is not what was written.
    """
    try:
        with path.open("rb", buffering=0) as file:
            document = json.loads(file.readall())
    except FileNotFoundError as error:
        raise CorruptStore(f"{path} is missing", advice=Advice.REPAIR) from error
    except (ValueError, RecursionError) as error:
        raise CorruptStore(
            f"{path} is damaged: it must hold JSON, found {error}", advice=Advice.REPAIR
        ) from error
    if not isinstance(document, dict) or "sha256" not in document:
        raise CorruptStore(
            f"{path} is damaged: it must hold a JSON object with its sha256", advice=Advice.REPAIR
        )
    stated = document.pop("sha256")
    digest = content_sha256(document)
    if digest != stated:
        raise CorruptStore(
            f"{path} was changed after it was written: its content has sha256 {digest[:12]}…, "
            f"it says {str(stated)[:12]}…",
            advice=Advice.REPAIR,
        )
    return document, digest


def read_store_document(path: Path) -> tuple[Identity, list[dict[str, Any]]]:
    """Read ``store.json``; return the identity and the list of ``{"number", "sha256"}`` of its parts.

    Raises
    ------
    StoreError
        If the folder is not a store, or of a newer format version.
    CorruptStore
        If ``store.json`` was changed after it was written.
    """
    layout = StoreLayout(path)
    if not layout.store_file.is_file():
        raise _not_a_store(path)
    document, _ = read_document(layout.store_file)
    version = document.get("format_version")
    if document.get("format") != FORMAT or not isinstance(version, int):
        raise StoreError(
            f"{layout.store_file} belongs to something else: format must be {FORMAT!r}, "
            f"found {document.get('format')!r}"
        )
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}; this program reads up to {FORMAT_VERSION}. "
            "Install a newer embedstore"
        )
    try:
        identity = identity_from_json(document["identity"], source=str(layout.store_file))
        parts = [
            {"number": int(entry["number"]), "sha256": str(entry["sha256"])} for entry in document["parts"]
        ]
    except (KeyError, TypeError, DataError) as error:
        raise CorruptStore(f"{layout.store_file} is damaged: {error}", advice=Advice.REPAIR) from error
    if identity.sha256 != document.get("identity_sha256"):
        raise CorruptStore(
            f"{layout.store_file}: identity_sha256 does not belong to its identity", advice=Advice.REPAIR
        )
    return identity, parts


def write_store_document(root: Path, identity: Identity, parts: list[dict[str, Any]]) -> None:
    """Write ``store.json``; from that moment the listed parts belong to the store."""
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "identity": identity.to_json(),
        "identity_sha256": identity.sha256,
        "parts": parts,
    }
    write_document(StoreLayout(root).store_file, document, label="store")


def read_part_plan(layout: PartLayout) -> tuple[PartPlan, str]:
    """Read ``part.json``; return the plan and its digest.

    Raises
    ------
    CorruptStore
        If it is missing or damaged.
    """
    document, digest = read_document(layout.plan_file)
    try:
        return PartPlan.from_json(document, source=str(layout.plan_file)), digest
    except (KeyError, TypeError, DataError) as error:
        raise CorruptStore(f"{layout.plan_file} is damaged: {error}", advice=Advice.REPAIR) from error


def read_receipt(layout: PartLayout, plan: PartPlan, chunk: int) -> Receipt:
    """Read a chunk's receipt.

    Raises
    ------
    CorruptStore
        If it is missing, damaged, or belongs to another chunk.
    """
    path = layout.receipt(chunk)
    document, _ = read_document(path)
    try:
        receipt = Receipt.from_json(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptStore(f"{path} is damaged: {error}", advice=Advice.REPAIR) from error
    if (receipt.chunk, receipt.start, receipt.stop) != (chunk, *plan.bounds(chunk)):
        raise CorruptStore(
            f"{path} belongs to chunk {receipt.chunk}, rows {receipt.start} to {receipt.stop - 1}",
            advice=Advice.REPAIR,
        )
    return receipt


def _not_a_store(path: Path) -> StoreError:
    if not path.exists():
        return StoreError(f"{path} does not exist; a store is a folder that an extraction makes")
    if not path.is_dir():
        return StoreError(f"{path} is a file; a store is a folder that an extraction makes")
    found = sorted(entry.name for entry in path.iterdir())[:5]
    if "parts" in found:
        return StoreError(
            f"{path} holds parts but no {STORE_FILE}: the store is half deleted", advice=Advice.REPAIR
        )
    return StoreError(
        f"{path} is not a store: {STORE_FILE} must lie in it, found {', '.join(found) or 'nothing'}"
    )
