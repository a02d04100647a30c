"""Words for jobs: the text tower of a store's encoder, and the zero-shot head made with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from cli.jobs.notify import Notify, ignore
from embedstore.encoders.registry import encoder_of_identity
from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.store.reader import Store
from embedstore.task import Task


class TextTower(Protocol):
    """Scale and bias of an encoder that was trained on pairs of images and texts."""

    logit_scale: float
    logit_bias: float


class TextEncoder(Protocol):
    """An encoder with a text tower."""

    @property
    def text(self) -> TextTower:
        """The text tower."""
        ...

    def encode_text(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, dim) vectors in the space of the images'."""
        ...


def text_encoder_of(
    store: Store, *, encoder: str | None = None, device: str = "auto", notify: Notify = ignore
) -> TextEncoder:
    """Return the text side of the store's encoder.

    Raises
    ------
    UsageError
        If that encoder has no text tower.
    IdentityMismatch
        If `encoder` makes other vectors than the store's.
    """
    found: Any = encoder_of_identity(
        store.identity, holder=f"store {store.path}", name=encoder, device=device, say=notify
    )
    if not hasattr(found, "encode_text"):
        raise UsageError(
            f"encoder {store.identity.encoder!r} has no text tower; words need a store of a SigLIP checkpoint"
        )
    return cast(TextEncoder, found)


def zeroshot_family_of(
    store: Store,
    task: Task,
    *,
    encoder: str | None = None,
    device: str = "auto",
    prompts: StrPath | None = None,
    notify: Notify = ignore,
) -> Any:
    """Return the zero-shot family of a task, from the project's prompts or a file of the user's."""
    from heads.estimators.zeroshot import read_prompts, zeroshot_family

    words = text_encoder_of(store, encoder=encoder, device=device, notify=notify)
    return zeroshot_family(
        task,
        words.encode_text,
        scale=float(words.text.logit_scale),
        bias=float(words.text.logit_bias),
        prompts=None if prompts is None else read_prompts(Path(prompts)),
    )
