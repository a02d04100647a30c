"""The recipe of a fine-tuning: every number that decides its result, as one frozen value.

Work A on MURA (arXiv 2511.05600) trains the top K of 2, 3 or 4 blocks and a head 1152-512-128-1 by AdamW with two
learning rates and a cosine; it publishes neither the rates nor K, batch or epochs. Work C, the lumbar LoRA
(https://huggingface.co/LamNH147/medgemma-lumbar-finetune), has r 16, alpha 32, dropout 0.05. Layer-wise decay of the
learning rate is that of BEiT (arXiv 2106.08254). The other numbers are this project's own choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embedstore.compute_device import check_dtype_name
from embedstore.errors import UsageError
from embedstore.files import canonical_json, sha256_bytes
from finetune.pictures.augment import Augmentation

METHODS = ("unfreeze", "lora")
TARGETS = ("q", "k", "v", "out", "fc1", "fc2")
INITIALISATIONS = ("default", "gaussian", "orthogonal", "pissa", "olora")
# Those that take their start out of the base's weights.
FROM_BASE = ("pissa", "olora")
FULL_BITS, QUANTISED_BITS = 32, 4
CLASS_WEIGHTS = ("none", "balanced")
PUBLISHED_HEAD = (512, 128)


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """Low-rank adapters in the blocks of the tower.

    Parameters
    ----------
    r, alpha, dropout
        Rank, scale (the change is alpha / r times the product) and dropout of the input, as in work C.
    targets
        Which linear layers of a block, of `TARGETS`.
    dora
        Learn magnitude and direction apart (arXiv 2402.09353).
    rslora
        Scale by alpha / sqrt(r) (arXiv 2312.03732).
    init
        How the two factors start, of `INITIALISATIONS`; each starts at the base's answers.
    base_bits
        Bits of a weight of the blocks while adapters are trained: 32, or 4 (NF4 by bitsandbytes). The encoder that
        comes out has the weights that four bits stand for, with the adapters, in float32.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: tuple[str, ...] = TARGETS
    dora: bool = False
    rslora: bool = False
    init: str = "default"
    base_bits: int = FULL_BITS

    def __post_init__(self) -> None:
        _require(self.r >= 1, "lora_r", self.r, "1 or more")
        _require(self.alpha > 0, "lora_alpha", self.alpha, "above 0")
        _require(0 <= self.dropout < 1, "lora_dropout", self.dropout, "from 0 to below 1")
        _require(
            bool(self.targets) and set(self.targets) <= set(TARGETS),
            "lora_targets",
            ",".join(self.targets),
            f"some of {', '.join(TARGETS)}",
        )
        _require(self.init in INITIALISATIONS, "lora_init", self.init, f"one of {', '.join(INITIALISATIONS)}")
        _require(
            self.base_bits in (QUANTISED_BITS, FULL_BITS),
            "base_bits",
            self.base_bits,
            f"{QUANTISED_BITS} or {FULL_BITS}",
        )
        _require(
            not (self.is_quantised and self.init in FROM_BASE),
            "lora_init",
            self.init,
            "default, gaussian or orthogonal with `base_bits=4`, because others change the base's weights",
        )

    @property
    def is_quantised(self) -> bool:
        """Whether the blocks' weights are held in four bits."""
        return self.base_bits == QUANTISED_BITS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an encoder is fine-tuned.

    Parameters
    ----------
    method
        ``unfreeze`` trains whole blocks, ``lora`` adapters in them.
    blocks
        How many blocks from the top; None for all (and, with ``unfreeze``, the embeddings too).
    lora
        The adapters, for ``lora``.
    head_widths, head_dropout
        Hidden layers of the classification head, and the share of their outputs that is dropped.
    head_epochs
        Epochs in which the head alone learns from the base's vectors, before anything else moves; 0 for none.
    epochs, batch, micro_batch
        Epochs, images of a step, and images that are computed at once; None for all of the batch.
    head_lr, lr, layer_decay
        Learning rate of the head; of the top block; and its factor from each block to the one below.
    weight_decay
        AdamW's; norms and biases have none.
    warm_up, clip
        Share of the steps in which the rates rise from 0; largest norm of a step's gradient, 0 for any.
    class_weights
        ``none``, or ``balanced``: every class of a target has the same total weight.
    ema
        Factor of the running mean of the weights, which is what is validated and kept; 0 for none.
    dtype
        Arithmetic of the passes (weights are float32 always): ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    recompute
        Compute the trained blocks' activations again in the backward pass, to save memory.
    augmentation
        How training images are varied.
    views
        Varied copies of each image; epoch e shows copy e modulo `views`. None for a new one in each epoch.
    validation_share, patience
        Share of the training patients on whom the training is judged; epochs without a smaller validation loss after
        which it stops.
    hold_out
        Share of the patients who have no part in the training, so that the encoder can be judged by them; None for none
        of a task with an official split, and 0.2 of any other.
    seed
        Of everything that is drawn.
    """

    method: str = "unfreeze"
    blocks: int | None = 2
    lora: LoraRecipe | None = None
    head_widths: tuple[int, ...] = PUBLISHED_HEAD
    head_dropout: float = 0.0
    head_epochs: int = 5
    epochs: int = 10
    batch: int = 32
    micro_batch: int | None = None
    head_lr: float = 1e-3
    lr: float = 2e-5
    layer_decay: float = 0.8
    weight_decay: float = 0.01
    warm_up: float = 0.05
    clip: float = 1.0
    class_weights: str = "none"
    ema: float = 0.0
    dtype: str = "auto"
    recompute: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)
    views: int | None = None
    validation_share: float = 0.15
    patience: int = 3
    hold_out: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        _require(
            (self.lora is not None) == (self.method == "lora"), "lora", self.lora, "given for `lora` alone"
        )
        _require(self.blocks is None or self.blocks >= 1, "blocks", self.blocks, "1 or more, or all")
        _require(
            all(w >= 1 for w in self.head_widths), "head_widths", self.head_widths, "widths of 1 or more"
        )
        _require(0 <= self.head_dropout < 1, "head_dropout", self.head_dropout, "from 0 to below 1")
        for name in ("epochs", "batch", "patience"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(self.head_epochs >= 0, "head_epochs", self.head_epochs, "0 or more")
        _require(self.views is None or self.views >= 1, "views", self.views, "1 or more")
        micro = self.micro_batch
        _require(micro is None or 1 <= micro <= self.batch, "micro_batch", micro, f"from 1 to {self.batch}")
        for name in ("head_lr", "lr"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        _require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0, up to 1")
        for name in ("weight_decay", "clip"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("warm_up", "ema"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        _require(
            0 < self.validation_share <= 0.5, "validation_share", self.validation_share, "above 0, up to 0.5"
        )
        held = self.hold_out
        _require(held is None or 0 <= held <= 0.8, "hold_out", held, "from 0 to 0.8")
        known = ", ".join(CLASS_WEIGHTS)
        _require(self.class_weights in CLASS_WEIGHTS, "class_weights", self.class_weights, f"one of {known}")
        check_dtype_name(self.dtype)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: what decides the result. How much is computed at once does not."""
        document = asdict(self)
        del document["micro_batch"]
        if self.lora is not None and not self.lora.is_quantised:
            # As recipes of before have it: their digests stay the same.
            del document["lora"]["base_bits"]
        return document

    @property
    def sha256(self) -> str:
        """Digest of the recipe."""
        return sha256_bytes(canonical_json(self.to_json()))

    def view_of(self, epoch: int) -> int:
        """Return which varied copy of its images an epoch shows."""
        return epoch if self.views is None else epoch % self.views


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between two documents of plain values; nested ones are dotted."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{name}.{line}" for line in differences(old, new)]
        elif old != new:
            found.append(f"{name}: {old!r} before, {new!r} now")
    return found


def _require(holds: bool, name: str, found: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"`{name}` must be {wanted}; found {found!r}")
