"""The options of ``embed finetune`` that make up its recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from embedstore.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
_ALL = "all"
# Settings of the recipe whose options have their names.
_AS_NAMED = (
    *("method", "head_dropout", "head_epochs", "epochs", "batch", "micro_batch", "head_lr", "lr"),
    *("layer_decay", "weight_decay", "warm_up", "clip", "class_weights", "ema", "dtype", "recompute"),
    *("validation_share", "patience", "hold_out", "seed"),
)


def cache_options(function: F) -> F:
    """Add the options of the prefix cache."""
    for option in reversed(_CACHE):
        function = option(function)
    return function


def recipe_options(function: F) -> F:
    """Add every option of the recipe; their defaults are those of `finetune.recipe.Recipe`."""
    for option in reversed((*_LEARNING, *_LORA, *_PICTURES)):
        function = option(function)
    return function


def blocks_of(text: str | None, method: str) -> list[int | None]:
    """Return the numbers of blocks that are named; None for all.

    Raises
    ------
    UsageError
        If it is neither a number, several with commas between, nor ``all``.
    """
    if text is None:
        return [None] if method == "lora" else [2]
    words = [word.strip() for word in text.split(",")]
    if not all(word == _ALL or word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise UsageError(f"--blocks must be a number, several with commas between, or all; found {text!r}")
    return [None if word == _ALL else int(word) for word in words]


def recipe_of(given: dict[str, Any], blocks: int | None) -> Any:
    """Take the recipe's options out of those of the command, and return the recipe."""
    # Imported where a training is asked for: it brings torch.
    from finetune.pictures.augment import Augmentation
    from finetune.recipe import LoraRecipe, Recipe

    augmentation = Augmentation(
        rotate_deg=given["rotate"],
        **{name: given[name] for name in ("shift", "scale", "contrast", "noise", "flip")},
    )
    lora = LoraRecipe(
        r=given["lora_r"],
        alpha=given["lora_alpha"],
        dropout=given["lora_dropout"],
        targets=_words(given["lora_targets"]),
        dora=given["dora"],
        rslora=given["rslora"],
        init=given["lora_init"],
        base_bits=given["base_bits"],
    )
    if lora.is_quantised and given["method"] != "lora":
        raise UsageError(f"--base-bits 4 needs --method lora; found --method {given['method']}")
    return Recipe(
        blocks=blocks,
        lora=lora if given["method"] == "lora" else None,
        head_widths=_widths(given["head_shape"]),
        augmentation=augmentation,
        views=given["cache_views"],
        **{name: given[name] for name in _AS_NAMED},
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _widths(text: str) -> tuple[int, ...]:
    words = [] if text == "linear" else _words(text)
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"--head-shape must be widths with commas between, or linear; found {text!r}")
    return tuple(map(int, words))


def _number(name: str, usual: float, what: str) -> Callable[[F], F]:
    kind = int if isinstance(usual, int) else float
    return click.option(name, type=kind, default=usual, show_default=True, help=what)


_LEARNING = (
    click.option(
        "--method",
        type=click.Choice(["unfreeze", "lora"]),
        default="unfreeze",
        show_default=True,
        help="Train whole blocks, or low-rank adapters in them.",
    ),
    click.option(
        "--blocks",
        metavar="K|K,K|all",
        help="Blocks from the top; several numbers train one encoder for each and print their table.  "
        "[default: 2, and all with --method lora]",
    ),
    click.option(
        "--head-shape",
        default="512,128",
        show_default=True,
        metavar="WIDTH,...|linear",
        help="Hidden layers of the classification head.",
    ),
    _number("--head-dropout", 0.0, "Share of their outputs that is dropped."),
    _number("--head-epochs", 5, "Epochs of the head alone, first."),
    _number("--epochs", 10, "Epochs at most."),
    _number("--batch", 32, "Images of a step."),
    click.option(
        "--micro-batch", type=int, help="Images at once.  [default: --batch; halved if memory runs out]"
    ),
    _number("--head-lr", 1e-3, "Learning rate of the head."),
    _number("--lr", 2e-5, "Learning rate of the top block (of adapters: 2e-4 is usual)."),
    _number("--layer-decay", 0.8, "Its factor from each block to the one below."),
    _number("--weight-decay", 0.01, "AdamW's; none on norms and biases."),
    _number("--warm-up", 0.05, "Share of the steps in which the rates rise."),
    _number("--clip", 1.0, "Largest length of a step's gradient; 0 for any."),
    click.option(
        "--class-weights",
        type=click.Choice(["none", "balanced"]),
        default="none",
        show_default=True,
        help="Weights of the classes in the loss.",
    ),
    _number("--ema", 0.0, "Factor of the running mean of the weights; 0 for none."),
    click.option("--dtype", default="auto", show_default=True, help="Arithmetic: auto, float32 or bfloat16."),
    click.option(
        "--recompute", is_flag=True, help="Compute activations again in the backward pass: less memory."
    ),
    _number("--validation-share", 0.15, "Share of the training patients who judge."),
    _number("--patience", 3, "Epochs without a smaller validation loss before it stops."),
    click.option(
        "--hold-out",
        type=float,
        help="Share of the patients without any part.  [default: 0.2; 0 with an official split]",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all draws."),
)
_LORA = (
    _number("--lora-r", 16, "Rank of the adapters."),
    _number("--lora-alpha", 32.0, "Their scale."),
    _number("--lora-dropout", 0.05, "Dropout of their input."),
    click.option(
        "--lora-targets",
        default="q,k,v,out,fc1,fc2",
        show_default=True,
        help="Linear layers of a block that get one.",
    ),
    click.option("--dora", is_flag=True, help="Learn magnitude and direction apart."),
    click.option("--rslora", is_flag=True, help="Scale by alpha / sqrt(r)."),
    click.option(
        "--lora-init",
        default="default",
        show_default=True,
        help="How adapters start: default, gaussian, orthogonal, pissa or olora.",
    ),
    _number("--base-bits", 32, "Bits of a weight of the blocks in training: 4 saves memory (bitsandbytes)."),
)
_CACHE = (
    click.option(
        "--cache",
        type=click.Choice(["auto", "none", "float16", "int8"]),
        default="auto",
        show_default=True,
        help="Keep on disk what frozen blocks make of each picture: they run once. auto where it pays and fits.",
    ),
    click.option(
        "--cache-folder", type=click.Path(path_type=Path), help="Keep it there, for other trainings too."
    ),
    click.option(
        "--cache-limit",
        type=float,
        metavar="GB",
        help="What it may take at most.  [default: the disk's room]",
    ),
)
_PICTURES = (
    _number("--rotate", 7.0, "Augmentation: turn up to, degrees."),
    _number("--shift", 0.03, "Shift up to, share of the side."),
    _number("--scale", 0.05, "Change of size up to, share."),
    _number("--contrast", 0.1, "Change of contrast up to, share."),
    _number("--noise", 0.01, "Noise up to, share of the range."),
    click.option(
        "--flip", is_flag=True, help="Mirror left and right half of the time: swaps the body's sides."
    ),
    click.option(
        "--cache-views",
        type=int,
        metavar="V",
        help="Varied copies of each image, shown in turn.  [default: a new one each epoch]",
    ),
)
