"""A checkpoint: a local folder or a hub repository with a configuration and safetensors files.

Nothing here imports torch or transformers, so that a finished store is recognised in a moment. Pickle
files are never opened, and no code of a repository is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embedstore.checkpoints.digest import check_blob, stated_sha256
from embedstore.checkpoints.hub import (
    DEFAULT_REVISION,
    HUB_URL,
    hub_file,
    interrupted_downloads,
    snapshot_commit,
)
from embedstore.checkpoints.safetensors_header import Shard, read_shard
from embedstore.errors import DataError, MissingDependency, MissingWeights, UsageError
from embedstore.files import canonical_json, sha256_bytes

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
LOCAL_REVISION = "local"
INSTALL_LINE = "pip install 'transformers>=5' sentencepiece"
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """Where weights lie and what their configuration says.

    Parameters
    ----------
    origin
        The folder or hub id as it was given, for messages.
    name
        Base name of the folder, or last part of the hub id.
    folder
        Folder with the files; of a hub id the snapshot in the local cache.
    revision
        Commit of the hub id, or ``local``.
    config
        Content of config.json.
    """

    origin: str
    name: str
    folder: Path
    revision: str
    config: Mapping[str, Any] = field(hash=False)

    @property
    def architecture(self) -> str:
        """What config.json calls ``model_type`` (``siglip``, ``gemma3``, ...)."""
        return str(self.config.get("model_type", ""))

    def find(self, filename: str) -> Path | None:
        """Return the path of one file, fetched if this is a hub id, or None if there is none."""
        if self.revision == LOCAL_REVISION:
            path = self.folder / filename
            return path if path.is_file() else None
        return hub_file(self.origin, filename, revision=self.revision)


def open_checkpoint(
    origin: str, *, revision: str | None = None, say: Callable[[str], None] = lambda line: None
) -> Checkpoint:
    """Find a checkpoint and read its configuration; weights are not touched.

    Parameters
    ----------
    origin
        A folder, or a hub id ``owner/name``.
    revision
        Branch, tag or commit of a hub id.
    say
        Receives a line for people if a later release of transformers wrote it.

    Raises
    ------
    MissingWeights
        If it is not there and cannot be fetched.
    DataError
        If the configuration is missing, damaged, or of a later generation of transformers.
    UsageError
        If `origin` is neither, or a revision is given for a folder.
    """
    folder = Path(origin).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UsageError(
                f"revision {revision!r} belongs to a hub id, and {origin} is a folder; leave it out"
            )
        config_path = folder / CONFIG_FILE
        if not config_path.is_file():
            raise _no_file(origin, folder, CONFIG_FILE)
        found = Checkpoint(origin, folder.resolve().name, folder, LOCAL_REVISION, read_json(config_path))
    elif origin.startswith((".", "/", "~")):
        raise MissingWeights(f"encoder folder {origin} is not there; a hub id has the form 'owner/name'")
    else:
        fetched = hub_file(origin, CONFIG_FILE, revision=revision)
        if fetched is None:
            raise DataError(
                f"{HUB_URL}/{origin} (revision {revision or DEFAULT_REVISION}) has no {CONFIG_FILE}, so it is no "
                "transformers checkpoint"
            )
        commit = snapshot_commit(fetched)
        found = Checkpoint(origin, origin.rpartition("/")[2], fetched.parent, commit, read_json(fetched))
    check_generation(found, say)
    return found


def check_generation(checkpoint: Checkpoint, say: Callable[[str], None]) -> None:
    """Refuse a configuration of a later major release; say so of a later minor one, which mostly works.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    say
        Receives a line for people about a later minor release.

    Raises
    ------
    DataError
        If a later major release of transformers wrote it.
    MissingDependency
        If transformers is not installed.
    """
    written_by = str(checkpoint.config.get("transformers_version", ""))
    try:
        installed = version("transformers")
    except PackageNotFoundError as error:
        raise MissingDependency(f"encoder {checkpoint.origin} needs transformers: {INSTALL_LINE}") from error
    written, have = _release(written_by), _release(installed)
    if written[:1] > have[:1]:
        raise DataError(
            f"{checkpoint.origin} was written by transformers {written_by}, and {installed} is installed; "
            f"run `pip install -U 'transformers>={written[0]}'`"
        )
    if written > have:
        say(
            f"{checkpoint.origin} was written by transformers {written_by}, and {installed} is installed; if it "
            "does not load, run `pip install -U transformers`"
        )


def weight_map(checkpoint: Checkpoint) -> dict[str, str]:
    """Return tensor name -> file name of every tensor, without opening a file that an index describes.

    Raises
    ------
    DataError
        If there are no safetensors files, or the index is damaged.
    MissingWeights
        If files are missing, after an interrupted download for instance.
    """
    # What is cached comes first: asking for the other of the two would need the hub.
    layouts = (SINGLE_FILE, INDEX_FILE)
    cached = [checkpoint.folder / name for name in layouts if (checkpoint.folder / name).is_file()]
    path = cached[0] if cached else checkpoint.find(SINGLE_FILE) or checkpoint.find(INDEX_FILE)
    if path is None:
        raise _no_weights(checkpoint)
    if path.name == INDEX_FILE:
        return _read_index(path)
    return dict.fromkeys(read_shard(path).shapes, SINGLE_FILE)


def open_shards(checkpoint: Checkpoint, filenames: Iterable[str]) -> list[Shard]:
    """Return the shards of these names, each whole to the last byte its header promises.

    Raises
    ------
    MissingWeights, DataError
        If one is missing; if one is damaged.
    """
    shards = []
    for filename in sorted(set(filenames)):
        path = checkpoint.find(filename)
        if path is None:
            raise _no_file(checkpoint.origin, checkpoint.folder, filename)
        shards.append(read_shard(path))
    return shards


def weights_sha256(shards: Iterable[Shard], config: Mapping[str, Any]) -> str:
    """Return one digest over the weights files and the part of the configuration that changes a vector.

    The same weights with another number of heads or another epsilon are another encoder, so the two are
    digested together.
    """
    files = [stated_sha256(shard.path) for shard in shards]
    return sha256_bytes(canonical_json({"config": dict(config), "files": files}))


def check_blobs(shards: Iterable[Shard]) -> None:
    """Check files of the hub's cache against the digests in their names, once for each file."""
    for shard in shards:
        check_blob(shard.path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a file of a checkpoint holds.

    Raises
    ------
    DataError
        If it is no JSON, or no object.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); copy or download the file again") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} must hold a JSON object; found {type(document).__name__}")
    return document


def _release(text: str) -> tuple[int, ...]:
    """Major and minor of a version; nothing if it does not say."""
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _read_index(path: Path) -> dict[str, str]:
    entries = read_json(path).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{path} has no weight_map; copy or download the file again")
    names = {str(tensor): str(filename) for tensor, filename in entries.items()}
    outside = sorted(filename for filename in set(names.values()) if Path(filename).name != filename)
    if outside:
        raise DataError(f"{path} names files outside its folder: {outside[0]!r}")
    return names


def _no_file(origin: str, folder: Path, filename: str) -> MissingWeights:
    if interrupted_downloads(folder):
        return MissingWeights(
            f"the download of {origin} was interrupted: {filename} is not complete. Run the same `hf download` "
            "again, which goes on where it stopped"
        )
    if (Path(origin) / "training" / "state.json").is_file():
        return MissingWeights(
            f"{origin} is an unfinished training; `embed finetune` goes on with it by `resume`"
        )
    return MissingWeights(f"{filename} is missing from {origin}; copy or download the whole checkpoint again")


def _no_weights(checkpoint: Checkpoint) -> DataError | MissingWeights:
    pickles = sorted(path.name for path in checkpoint.folder.glob("*") if path.suffix in _PICKLE_SUFFIXES)
    if checkpoint.revision == LOCAL_REVISION and not pickles:
        return _no_file(checkpoint.origin, checkpoint.folder, SINGLE_FILE)
    found = f"only {', '.join(pickles)}" if pickles else "none"
    return DataError(
        f"{checkpoint.origin} must hold safetensors weights; found {found}. Pickle files can run code and are "
        "refused: convert them where you trust them, with save_pretrained"
    )
