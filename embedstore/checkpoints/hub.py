"""Files of a Hugging Face repository: from the local cache, or fetched into it.

What is cached is used without asking the hub, so that a run means the same tomorrow and works offline.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedstore.errors import MissingWeights, UsageError

HUB_URL = "https://huggingface.co"
DEFAULT_REVISION = "main"
# Until a hub that does not answer is given up: its library would try again for half a minute, and print each time.
_ANSWER_S = 10.0
WITHOUT_WEIGHTS = "`encoder='hog'` needs no weights and runs now"


class HubUnreachable(MissingWeights):
    """The hub does not answer, or is not to be asked, and the cache has not the file."""


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
    from huggingface_hub.errors import EntryNotFoundError

    wanted = revision or DEFAULT_REVISION
    try:
        with _explained(repo_id, filename, wanted):
            known, path = _cached(repo_id, filename, wanted)
            if known:
                return path
            # That it has no such file is asked again below, where the cache notes it for later.
            with suppress(EntryNotFoundError):
                _require_answer(repo_id, filename, wanted, timeout_s=_ANSWER_S)
            return Path(huggingface_hub.hf_hub_download(repo_id, filename, revision=wanted))
    except EntryNotFoundError:
        return None


def check_access(
    repo_id: str, filename: str, *, revision: str | None = None, timeout_s: float | None
) -> None:
    """Ask the hub, once and briefly, whether it gives a file that is not cached; nothing is fetched.

    Parameters
    ----------
    repo_id, filename, revision
        As `hub_file`.
    timeout_s
        Seconds to wait for a connection, and for the answer; None where the hub is known not to answer, and only
        the cache is looked at.

    Raises
    ------
    HubUnreachable
        If the hub does not answer, or is not to be asked (``HF_HUB_OFFLINE``, or without `timeout_s`).
    MissingWeights, UsageError
        As `hub_file`.
    """
    from huggingface_hub.errors import EntryNotFoundError

    wanted = revision or DEFAULT_REVISION
    # A repository without the file has answered.
    with suppress(EntryNotFoundError), _explained(repo_id, filename, wanted):
        known, _ = _cached(repo_id, filename, wanted)
        if not known and timeout_s is None:
            raise _offline(repo_id, filename, wanted)
        if not known:
            _require_answer(repo_id, filename, wanted, timeout_s=timeout_s)


def _require_answer(repo_id: str, filename: str, revision: str, *, timeout_s: float | None) -> None:
    """Ask the hub once for the head of a file; raises what the library raises."""
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(repo_id, filename, revision=revision)
    huggingface_hub.get_hf_file_metadata(url, timeout=timeout_s)


def _cached(repo_id: str, filename: str, revision: str) -> tuple[bool, Path | None]:
    """Return whether the cache knows, and the file, or None if the hub has said before that there is none."""
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(repo_id, filename, revision=revision)
    return cached is not None, Path(cached) if isinstance(cached, str) else None


@contextmanager
def _explained(repo_id: str, filename: str, revision: str) -> Iterator[None]:
    """Turn what the library raises into errors with advice, `EntryNotFoundError` aside."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UsageError(
            f"`encoder` must be a folder that is there or a hub id 'owner/name'; found {repo_id!r}"
        ) from error
    except errors.GatedRepoError as error:
        raise MissingWeights(
            f"weights of {repo_id} are gated: accept the terms at {HUB_URL}/{repo_id}, then run "
            f"`hf auth login` and this command again. {WITHOUT_WEIGHTS}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise MissingWeights(
            f"{HUB_URL}/{repo_id} is not there, or is private: check the name, or run `hf auth login`. "
            f"{WITHOUT_WEIGHTS}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MissingWeights(
            f"{repo_id} has no revision {revision!r}; leave `revision` out for its main branch, or see "
            f"{HUB_URL}/{repo_id}/commits/main"
        ) from error
    except _out_of_reach() as error:
        raise _offline(repo_id, filename, revision) from error
    except errors.EntryNotFoundError:
        raise
    except OSError as error:  # other answers of the hub, a full disk
        first_line = str(error).partition("\n")[0]
        raise MissingWeights(
            f"{filename} of {repo_id} could not be fetched: {first_line}. {WITHOUT_WEIGHTS}"
        ) from error


def _out_of_reach() -> tuple[type[Exception], ...]:
    """Return what the library raises without a connection."""
    from huggingface_hub import errors

    # Which HTTP client it has, and so whose errors it lets through, depends on its release.
    clients = (sys.modules.get(name) for name in ("httpx2", "httpx"))
    broken = (client.TransportError for client in clients if client is not None)
    return errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, *broken


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
            f"Run {command} with a network to finish it. {WITHOUT_WEIGHTS}"
        )
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    return HubUnreachable(
        f"{filename} of {repo_id} (revision {revision}) is not in the cache {repository.parent}, and {why}. "
        f"Run {command} where there is a network (gated models: accept the terms at {HUB_URL}/{repo_id} "
        f"and `hf auth login` first), or give a local folder. {WITHOUT_WEIGHTS}"
    )
