"""What a data set reader is, and how one is found by name."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from embedstore.brief import Brief
from embedstore.errors import UsageError, did_you_mean
from embedstore.files import FileState, StrPath
from embedstore.keys.key_file import Key
from embedstore.manifest import Manifest, Record
from embedstore.plugins import DATASETS, find_plugin, plugin_names, require_options
from embedstore.task import Task

# The file that marks a folder as drawn by a computer.
NOTICE = "PHANTOM.txt"


@dataclass(frozen=True, repr=False)
class Collection(Brief):
    """What a reader found: the records, the tasks, and what a person should know about them.

    Parameters
    ----------
    dataset
        Registered name of the reader.
    root
        The folder or file that paths are relative to.
    manifest
        The records, in a fixed order: the same tree gives the same manifest.
    tasks
        The tasks whose labels the data set brings; may be empty.
    summary
        Facts for people, in order (``"patients": 120``, ``"absent": "valid split: 3 files of 3,197"``).
    tables
        Further tables that belong to the records and are kept with the store (``"coordinates"``).
    key
        The key behind its ids, where these are pseudonyms.
    owner_rows
        What the owner's map says of this folder (`embedstore.keys.owner_map.map_rows`); never kept in a store.
    whole
        Where the records are crops: the images that they are cut from, and the others of their series.
    crop
        Where they are: the rule by which they are cut, as the identity of their vectors states it.
    """

    dataset: str
    root: Path
    manifest: Manifest
    tasks: tuple[Task, ...] = ()
    summary: Mapping[str, str | int] = field(default_factory=dict)
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    key: Key | None = None
    owner_rows: pa.Table | None = field(default=None, repr=False)
    whole: Manifest | None = field(default=None, repr=False)
    crop: Mapping[str, Any] | None = None

    @property
    def images(self) -> Manifest:
        """The whole images, over whose series value ranges are taken: the records, unless these are crops."""
        return self.manifest if self.whole is None else self.whole

    def kept_state(self, state: FileState) -> FileState:
        """Return what a store may keep of a file: where paths are hidden, a digest of its time, which is a date."""
        if not self.hides_paths or self.key is None:
            return state
        digest = hashlib.sha256(self.key.id_of("time", str(state.mtime_ns)).encode()).digest()
        return state._replace(mtime_ns=int.from_bytes(digest[:7], "little"))

    @property
    def hides_paths(self) -> bool:
        """Whether a store gets no path: the manifest knows them, and its table does not."""
        return bool(self.manifest.paths)

    def located(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield records of a store that was made from this, with the path at which each file lies."""
        for record in records:
            path = self.manifest.paths.get(record.image_id)
            yield record if path is None else replace(record, path=path)

    @property
    def phantom(self) -> bool:
        """Whether the folder is marked as a phantom: images drawn by a computer, which show no patient."""
        return (self.root / NOTICE).is_file()

    def _facts(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "images": len(self.manifest),
            "tasks": [task.name for task in self.tasks],
        }


class DatasetReader(Protocol):
    """Reads the index of one data set's layout; never decodes a pixel.

    The constructor takes the reader's own options as keyword arguments and stores them. A reader may have an
    attribute ``task_names`` with the names of its tasks, the usual one first; `embed init` writes that one.
    """

    name: str

    def read(self, root: Path) -> Collection:
        """Index the data set at `root`.

        Raises
        ------
        DataError
            If `root` is something else; the message names what was expected and what was found.
        """
        ...


def first_task(reader: DatasetReader) -> str | None:
    """Return the name of a reader's usual task, where it says so before anything is read."""
    return next(iter(getattr(reader, "task_names", ())), None)


@runtime_checkable
class FileReader(Protocol):
    """A reader that can say of a few files what it says of them among the whole data set.

    Not every reader can: of one that only has `read`, the whole data set is indexed.
    """

    def root_of(self, path: Path) -> Path | None:
        """Return the data set's folder above a file, by the layout alone; None where the file is not of the layout."""
        ...

    def read_files(self, root: Path, paths: Sequence[str]) -> Manifest:
        """Return the rows of some files, and those of the other files of their studies, as `read` has them.

        Parameters
        ----------
        root
            As `root_of` gives it.
        paths
            Manifest paths; one that is not of the data set has no row.

        Raises
        ------
        DataError
            As `DatasetReader.read`, of the tables that rows come from.
        """
        ...


def columns_of_headers(reader: DatasetReader) -> frozenset[str]:
    """Return the manifest columns that a reader takes from nothing but the header of each DICOM file."""
    return frozenset(getattr(reader, "header_columns", ()))


def dataset_names() -> list[str]:
    """Return the registered names, sorted.

    Examples
    --------
    >>> es.dataset_names()
    ['dicom-folder', 'mura', 'rsna-lumbar', 'rsna-pneumonia', 'table']
    """
    return plugin_names(DATASETS)


def read_dataset(name: str, root: StrPath, options: Mapping[str, Any] | None = None) -> Collection:
    """Index a data set with the reader registered as `name`; no pixel is decoded.

    Parameters
    ----------
    name
        One of `dataset_names`.
    root
        Folder or file of the data set.
    options
        The reader's own.

    Raises
    ------
    UsageError
        If no reader has that name, or it does not take one of the options.
    DataError
        If `root` is something else; the message names what was expected and what was found.

    Examples
    --------
    >>> collection = es.read_dataset("mura", "MURA-v1.1")
    >>> collection.summary["patients"]
    60
    """
    return dataset_reader(name, options).read(Path(root))


def takes_option(name: str, option: str) -> bool:
    """Whether the reader of this name has an option; False for a name that no reader has.

    Raises
    ------
    PluginError
        If the package that offers it cannot be imported.
    """
    found = find_plugin(DATASETS, name)
    return found is not None and option in inspect.signature(found.load()).parameters


def dataset_reader(name: str, options: Mapping[str, Any] | None = None) -> DatasetReader:
    """Build the reader registered as `name` with its `options`.

    Raises
    ------
    UsageError
        If no reader has that name, or it does not take one of the options.
    PluginError
        If the package that offers it cannot be imported.
    """
    found = find_plugin(DATASETS, name)
    if found is None:
        hint = did_you_mean(name, dataset_names())
        raise UsageError(f"`dataset` must be one of {', '.join(dataset_names())}; found {name!r}{hint}")
    reader_class, given = found.load(), options or {}
    require_options(reader_class, given, what=f"dataset {name!r}")
    try:
        reader: DatasetReader = reader_class(**given)
    except TypeError as error:
        raise UsageError(f"dataset {name!r} does not take these options: {error}") from error
    return reader
