"""Files of a Hugging Face repository: from the local cache, or fetched into it.

What is cached is used without asking the hub, so that a run means the same tomorrow and works offline.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.errors import MissingWeights, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB_URL = "https://huggingface.co"
DEFAULT_REVISION = "main"
_WITHOUT_WEIGHTS = "`--encoder hog` needs no weights and runs now"


def hub_file(repo_id: str, filename: str, *, revision: str | None = None) -> Path | None:
    """Return the path of one file of a repository in the local cache, fetching it if it is not there.

    Parameters
    ----------
    repo_id
        ``owner/name``.
    filename
        Name inside the repository.
    revision
        Branch, tag or commit; None is ``main``.

    Returns
    -------
    Path inside ``snapshots/<commit>/``, or None if the repository has no such file.

    Raises
    ------
    MissingWeights
        If it is not cached and cannot be fetched: offline, gated, unknown, interrupted.
    UsageError
        If `repo_id` has not the form of a hub id.
    """
    import huggingface_hub
    from huggingface_hub import errors

    wanted = revision or DEFAULT_REVISION
    try:
        cached = huggingface_hub.try_to_load_from_cache(repo_id, filename, revision=wanted)
        if isinstance(cached, str):
            return Path(cached)
        if cached is not None:  # the hub has said before that there is no such file
            return None
        return Path(huggingface_hub.hf_hub_download(repo_id, filename, revision=wanted))
    except errors.HFValidationError as error:
        raise UsageError(
            f"encoder must be a folder that is there or a hub id 'owner/name'; found {repo_id!r}"
        ) from error
    except errors.GatedRepoError as error:
        raise MissingWeights(
            f"weights of {repo_id} are gated: accept the terms at {HUB_URL}/{repo_id}, then run "
            f"`hf auth login` and this command again. {_WITHOUT_WEIGHTS}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise MissingWeights(
            f"{HUB_URL}/{repo_id} is not there, or is private: check the name, or run `hf auth login`. "
            f"{_WITHOUT_WEIGHTS}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MissingWeights(
            f"{repo_id} has no revision {wanted!r}; leave --revision out for its main branch, or see "
            f"{HUB_URL}/{repo_id}/commits/main"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise _offline(repo_id, filename, wanted) from error
    except errors.EntryNotFoundError:
        return None
    except OSError as error:  # other answers of the hub, broken connections, a full disk
        first_line = str(error).partition("\n")[0]
        raise MissingWeights(
            f"{filename} of {repo_id} could not be fetched: {first_line}. {_WITHOUT_WEIGHTS}"
        ) from error


def snapshot_commit(path: Path) -> str:
    """Return the commit that a cached file belongs to: ``.../snapshots/<commit>/<file>``."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1]


def interrupted_downloads(folder: Path) -> list[Path]:
    """Return what interrupted downloads left in a folder: a repository of the cache, or a local copy."""
    return sorted(_incomplete_files(folder))


def _incomplete_files(folder: Path) -> Iterator[Path]:
    for place in (folder, folder / "blobs", folder / ".cache" / "huggingface" / "download"):
        yield from place.glob("*.incomplete")


def _offline(repo_id: str, filename: str, revision: str) -> MissingWeights:
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
    command = f"`hf download {repo_id}`"
    if interrupted_downloads(repository):
        return MissingWeights(
            f"the download of {repo_id} was interrupted: {filename} is not complete in {repository}. "
            f"Run {command} with a network to finish it. {_WITHOUT_WEIGHTS}"
        )
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    return MissingWeights(
        f"{filename} of {repo_id} (revision {revision}) is not in the cache {repository.parent}, and {why}. "
        f"Run {command} where there is a network (gated models: accept the terms at {HUB_URL}/{repo_id} "
        f"and `hf auth login` first), or give a local folder. {_WITHOUT_WEIGHTS}"
    )
