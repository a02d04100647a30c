"""Audits that the page asks for: one at a time, beside everything else, and what they found."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from cli.page.served_store import ServedStore, Shelf
from cli.searching.audit_job import AuditJob, run_audit
from cli.studying.openings import state_of_store
from embedstore.audit.findings import KINDS, Audit, Finding
from embedstore.errors import EmbedError, UsageError

# Of a kind, and of a finding; `embed audit --json` has all.
_FINDINGS_SHOWN = 24
_PICTURES_SHOWN = 6


class _Ended(Exception):
    """The page ends before the audit does."""


@dataclass(eq=False)
class _State:
    """Where the audit of a store is.

    Parameters
    ----------
    served
        The store.
    state
        How it was (`cli.studying.openings.state_of_store`).
    done, total
        Pictures.
    audit, error
        What came of it.
    """

    served: ServedStore
    state: tuple[object, ...]
    done: int = 0
    total: int = 0
    audit: Audit | None = None
    error: str = ""


class Audits:
    """Audits stores; close it at the end.

    Parameters
    ----------
    shelf
        The stores.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._states: dict[str, _State] = {}
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ending = False

    def begin(self, name: str) -> None:
        """Begin the audit of a store; raises UsageError while another one goes on."""
        served = self._shelf.served(name)
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise UsageError("an audit is being made; wait until it is done")
            state = self._states[name] = _State(served, state_of_store(served.store.path))
            self._thread = threading.Thread(target=self._audit, args=(state,), name="page-audit")
            self._thread.start()

    def state(self, name: str) -> dict[str, Any]:
        """Return ``state`` (``none``, ``working``, ``failed`` or ``done``) and what belongs to it.

        Of a store that has changed since, nothing is known.
        """
        served, state = self._shelf.served(name), self._states.get(name)
        if state is None or state.state != state_of_store(served.store.path):
            return {"state": "none"}
        if state.error:
            return {"state": "failed", "error": state.error}
        if state.audit is None:
            return {"state": "working", "done": state.done, "total": state.total}
        return {"state": "done", **audit_document(served, state.audit)}

    def close(self) -> None:
        """End what goes on."""
        self._ending = True
        if self._thread is not None:
            self._thread.join()

    def _audit(self, state: _State) -> None:
        def progress(done: int, total: int) -> None:
            state.done, state.total = done, total
            if self._ending:
                raise _Ended

        try:
            key_file = self._shelf.catalog.key_file
            state.audit = run_audit(
                AuditJob(store=state.served.store, key_file=key_file), progress=progress
            ).audit
        except _Ended:
            state.error = "the page has ended"
        except EmbedError as error:
            state.error = str(error)
        except Exception as error:  # noqa: BLE001 - a defect, said without what it was about
            state.error = f"the audit has a defect: {type(error).__name__}"


def audit_document(served: ServedStore, audit: Audit) -> dict[str, Any]:
    """Return what an audit found as plain JSON values, with the rows of the pictures to show."""
    return {
        "images": audit.images,
        "pictures": audit.pictures,
        "unseen": list(audit.unseen),
        "notices": list(audit.notices),
        "kinds": [
            {
                "kind": kind,
                "means": means,
                "count": audit.counts[kind],
                "findings": [_shown(served, found) for found in audit.of_kind(kind)[:_FINDINGS_SHOWN]],
            }
            for kind, means in KINDS.items()
        ],
    }


def _shown(served: ServedStore, found: Finding) -> dict[str, Any]:
    row_of = served.store.row_of
    return {
        "why": found.why,
        "images": [
            {"row": row_of[image_id], "image_id": image_id, "left_out": image_id in found.leave_out}
            for image_id in found.image_ids[:_PICTURES_SHOWN]
        ],
        "more": max(0, len(found.image_ids) - _PICTURES_SHOWN),
    }
