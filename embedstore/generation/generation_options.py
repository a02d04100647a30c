"""How answers are generated, and how far a generation has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.generation.prompt import Prompt
from embedstore.generation.slice_choice import DEFAULT_IMAGES
from embedstore.keys.key_file import Key
from embedstore.queries.conditions import Where

MAX_NEW_TOKENS = 400
END, TOKEN_LIMIT, NO_IMAGE = "end", "token limit", "no image"
_LARGEST_SEED = 2**63


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """How answers are generated.

    Parameters
    ----------
    adapter
        Folder of a LoRA adapter, merged into the model.
    revision
        Branch, tag or commit of a hub id.
    task
        Only studies that this task of the store labels; all by default.
    ids, where, limit
        As `embedstore.generation.study_images.plan_studies`.
    images
        How many slices, or how many of each view (`embedstore.generation.slice_choice.slice_rule`).
    prompt
        The question.
    max_new_tokens
        Where an answer without an end is cut off.
    temperature
        0 takes the likeliest token each time; above, tokens are drawn.
    seed
        Of the draws; each study has its own by this and its id.
    score_slots
        Also read the probabilities of N, M and S at each of the 25 codes.
    batch
        Studies in a batch. Another number may change the last bits of a probability.
    device, dtype
        As `embedstore.compute_device.resolve_device` and `resolve_dtype`.
    workers
        Decoding processes.
    key
        The key of a store whose paths are hidden.

    Raises
    ------
    UsageError
        For an option with another value.
    """

    adapter: StrPath | None = None
    revision: str | None = None
    task: str | None = None
    ids: Sequence[str] = ()
    where: Where = ()
    limit: int | None = None
    images: str = DEFAULT_IMAGES
    prompt: Prompt = field(default_factory=Prompt)
    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 0.0
    seed: int = 0
    score_slots: bool = False
    batch: int = 1
    device: str = "auto"
    dtype: str = "auto"
    workers: int = 2
    key: Key | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "max_new_tokens", "workers"):
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` must be 1 or more; found {getattr(self, name)}")
        if not 0 <= self.temperature <= 100:
            raise UsageError(
                f"`temperature` must be from 0 (the likeliest token) to 100; found {self.temperature}"
            )
        if not 0 <= self.seed < _LARGEST_SEED:
            raise UsageError(f"`seed` must be 0 or more and below 2**63; found {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Generated:
    """How far a generation has come.

    Parameters
    ----------
    studies
        Studies to answer in all.
    before
        How many of them the file answered before.
    answered
        How many were answered now.
    without_image
        Of those, how many have no image and an empty response.
    cut_off
        Of those, how many came to the token limit.
    failed_images
        Images that could not be shown.
    """

    studies: int
    before: int
    answered: int = 0
    without_image: int = 0
    cut_off: int = 0
    failed_images: int = 0

    @property
    def done(self) -> int:
        """Studies that the file answers."""
        return self.before + self.answered

    def plus(self, lines: Sequence[dict[str, Any]]) -> Generated:
        """Return the state after some more lines of the file."""
        return Generated(
            studies=self.studies,
            before=self.before,
            answered=self.answered + len(lines),
            without_image=self.without_image + sum(line["finish"] == NO_IMAGE for line in lines),
            cut_off=self.cut_off + sum(line["finish"] == TOKEN_LIMIT for line in lines),
            failed_images=self.failed_images + sum(len(line.get("failed_images", ())) for line in lines),
        )
