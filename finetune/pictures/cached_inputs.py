"""Training from a cache of what the frozen blocks made; filling it, and whether it pays."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from embedstore.brief import in_bytes
from embedstore.errors import DataError, UsageError
from finetune.pictures.inputs import Numbers, PictureInputs
from finetune.pictures.prefix_cache import PLAIN_VIEW, CacheChunk, PrefixCache
from finetune.recipe import Recipe

CACHES = ("auto", "none", "float16", "int8")
# What a cache must save of the time to be worth its disk, and the share of the free disk that it may take.
_WORTH, _SHARE_OF_DISK = 0.8, 0.8
_GB = 1e9
# A backward pass costs about twice its forward pass.
_BACKWARD = 2


@dataclass(frozen=True)
class CachedInputs:
    """Residual streams out of a cache; what it does not hold is computed from the pictures.

    Parameters
    ----------
    cache
        The whole cache.
    place_of
        View -> number of an image -> its place in the view.
    pictures
        The images themselves.
    below
        The frozen blocks.
    """

    cache: PrefixCache
    place_of: Mapping[int, Mapping[int, int]]
    pictures: PictureInputs
    below: Callable[[torch.Tensor], torch.Tensor]

    is_residual = True

    def batches(self, batches: Sequence[Numbers], *, view: int | None) -> Iterator[torch.Tensor]:
        """Yield (n, tokens, dim) float32 of each batch, read while the one before is computed."""
        wanted = PLAIN_VIEW if view is None or self.pictures.augmentation.changes_nothing else view
        places = self.place_of.get(wanted, {})
        if not all(int(number) in places for batch in batches for number in batch):
            for pictures in self.pictures.batches(batches, view=view):
                with torch.no_grad():
                    yield self.below(pictures).float()
            return
        if not batches:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="prefix") as reader:

            def ask(batch: Numbers) -> torch.Tensor:
                return self.cache.read(wanted, _places(places, batch))

            waiting = [reader.submit(ask, batch) for batch in batches[:1]]
            for batch in [*batches[1:], None]:
                found = waiting.pop().result()
                if batch is not None:
                    waiting.append(reader.submit(ask, batch))
                yield found.to(self.pictures.device)


def _places(places: Mapping[int, int], batch: Numbers) -> Numbers:
    found = batch.copy()
    found[:] = [places[int(number)] for number in batch]
    return found


@torch.no_grad()
def fill_cache(
    cache: PrefixCache,
    numbers_of: Mapping[int, Numbers],
    pictures: PictureInputs,
    below: Callable[[torch.Tensor], torch.Tensor],
    *,
    batch: int,
    stopping: Callable[[], bool],
    advance: Callable[[int, int, float], None],
) -> bool:
    """Compute what a cache lacks, chunk by chunk; return whether it is whole.

    Parameters
    ----------
    cache
        The cache.
    numbers_of
        View -> numbers of its images, in the order of the cache.
    pictures, below
        As `CachedInputs`.
    batch
        Pictures at once.
    stopping
        Asked before each chunk.
    advance
        Receives rows done, rows in all, and seconds.
    """
    began, done = time.monotonic(), 0
    missing = cache.missing()
    total = sum(chunk.rows for chunk in missing)
    for view, numbers in numbers_of.items():
        own = [chunk for chunk in missing if chunk.view == view]
        pieces = [numbers[at : min(at + batch, chunk.stop)] for chunk in own for at in _starts(chunk, batch)]
        given = pictures.batches(pieces, view=None if view == PLAIN_VIEW else view)
        for chunk in own:
            if stopping():
                return False
            made = [below(next(given)).float().cpu() for _ in _starts(chunk, batch)]
            cache.write(chunk, torch.cat(made))
            done += chunk.rows
            advance(done, total, time.monotonic() - began)
    return True


def _starts(chunk: CacheChunk, batch: int) -> range:
    return range(chunk.start, chunk.stop, batch)


def saved_share(recipe: Recipe, *, blocks: int, frozen: int) -> float:
    """Return the time of a training with a cache as a share of that without, counted in passes through blocks.

    Examples
    --------
    >>> from finetune.pictures.augment import NONE
    >>> round(saved_share(Recipe(epochs=10, augmentation=NONE), blocks=27, frozen=25), 2)
    0.27
    """
    trained = (blocks - frozen) * (1 + _BACKWARD + int(recipe.recompute))
    views = 1 if recipe.augmentation.changes_nothing else recipe.views or recipe.epochs
    without = recipe.epochs * (frozen + trained)
    return (min(views, recipe.epochs) * frozen + recipe.epochs * trained) / without


def cache_format(
    asked: str, recipe: Recipe, *, blocks: int, frozen: int, say: Callable[[str], None]
) -> str | None:
    """Return the format of a number in the cache; None for no cache.

    Raises
    ------
    UsageError
        If one is asked for where no block is frozen.
    """
    if asked not in CACHES:
        raise UsageError(f"`cache` must be one of {', '.join(CACHES)}; found {asked!r}")
    if asked == "none" or (asked == "auto" and not frozen):
        return None
    if not frozen:
        raise UsageError(
            "`cache` keeps what frozen blocks make, and none is frozen; leave it out, or train fewer `blocks`"
        )
    share = saved_share(recipe, blocks=blocks, frozen=frozen)
    if asked == "auto":
        if share > _WORTH:
            return None
        say(
            f"a prefix cache would take {share:.0%} of the passes: the {frozen} frozen blocks run once a picture"
        )
    return "float16" if asked == "auto" else asked


def has_room(cache: PrefixCache, *, limit_gb: float | None, asked: str, say: Callable[[str], None]) -> bool:
    """Say how large a cache is and whether it fits.

    Raises
    ------
    DataError
        If one that was asked for does not.
    """
    spec, missing = cache.spec, cache.missing_bytes
    free = shutil.disk_usage(cache.folder).free
    say(
        f"prefix cache: {spec.rows:,} rows of {spec.tokens:,} x {spec.dim:,} {spec.format}, "
        f"{in_bytes(spec.row_bytes)} a row, {in_bytes(spec.bytes)} in all, {in_bytes(missing)} to be written; "
        f"{in_bytes(free)} are free"
    )
    over_limit = limit_gb is not None and spec.bytes > limit_gb * _GB
    if not over_limit and missing <= _SHARE_OF_DISK * free:
        return True
    why = (
        f"the limit is {limit_gb:g} GB"
        if over_limit
        else f"it may take {_SHARE_OF_DISK:.0%} of the {in_bytes(free)} that are free at {cache.folder}"
    )
    if asked != "auto":
        raise DataError(
            f"the prefix cache needs {in_bytes(missing if not over_limit else spec.bytes)}, and {why}. Use "
            "`cache='int8'`, fewer `views`, another `cache_folder` or a higher `cache_limit`, or none"
        )
    say(f"no prefix cache: {why}")
    return False


def drop_cache(root: Path) -> None:
    """Remove caches that nobody asked to keep."""
    shutil.rmtree(root, ignore_errors=True)
