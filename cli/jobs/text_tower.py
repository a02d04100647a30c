"""Words for jobs: the text tower of a store's encoder, and the grid of a head that needs one."""

from __future__ import annotations

from pathlib import Path

from cli.notify import Notify, ignore
from embedstore.encoders.registry import encoder_of_identity
from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.store.reader import Store
from embedstore.task import Task
from embedstore.text_tower import TextTower
from heads.base import HeadFamily
from heads.registry import head_class


def text_tower_of(
    store: Store, *, encoder: str | None = None, device: str = "auto", notify: Notify = ignore
) -> TextTower:
    """Return the text tower of the store's encoder.

    Raises
    ------
    UsageError
        If that encoder has no text tower.
    IdentityMismatch
        If `encoder` makes other vectors than the store's.
    """
    found = encoder_of_identity(
        store.identity, holder=f"store {store.path}", name=encoder, device=device, say=notify
    )
    if found.text is None:
        raise UsageError(
            f"encoder {store.identity.encoder!r} has no text tower; words need a store of a SigLIP checkpoint"
        )
    return found.text


def text_family_of(
    head: str,
    store: Store,
    task: Task,
    *,
    encoder: str | None = None,
    device: str = "auto",
    prompts: StrPath | None = None,
    notify: Notify = ignore,
) -> HeadFamily:
    """Return the grid of a head that needs a text tower, from its own prompts or a file of the user's."""
    text = text_tower_of(store, encoder=encoder, device=device, notify=notify)
    return head_class(head).family_of_text(task, text, prompts=None if prompts is None else Path(prompts))
