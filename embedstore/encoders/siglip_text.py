"""The text tower of a SigLIP checkpoint: prompts into vectors that compare with image vectors.

Score of a prompt for an image: ``logit_scale * cosine + logit_bias``.
"""

from __future__ import annotations

import re
import string
import warnings
from collections.abc import Sequence
from functools import cached_property
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from embedstore.checkpoints.checkpoint import INSTALL_LINE, Checkpoint, check_blobs, open_shards, weight_map
from embedstore.checkpoints.safetensors_header import damaged_tensors
from embedstore.compute_device import DTYPES, check_device_name, resolve_device
from embedstore.encoders.transformers_models import load_pretrained
from embedstore.errors import DataError, MissingDependency, UsageError

POSITIONS = 64
PAD_ID = 1  # `</s>`, which ends a text and fills it up
TOKENIZER_FILE = "spiece.model"
_UNKNOWN = "<unk>"
_SPACE = "\u2581"  # how sentencepiece writes a blank
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def canonical(text: str) -> str:
    r"""Return the text as SigLIP was trained on it: lower case, no ASCII punctuation, single blanks.

    As big_vision's ``canonicalize_text`` and transformers' ``SiglipTokenizer``.

    Examples
    --------
    >>> canonical("  A chest X-ray, with\tPleural Effusion! ")
    'a chest xray with pleural effusion'
    """
    return re.sub(r"\s+", " ", text.lower().translate(_WITHOUT_PUNCTUATION)).strip()


class SiglipTokens:
    """Texts into token ids, by a checkpoint's own sentencepiece model.

    Parameters
    ----------
    path
        The file spiece.model.

    Raises
    ------
    MissingDependency
        If sentencepiece is not installed.
    DataError
        If the file is damaged, or its ids are not SigLIP's.
    """

    def __init__(self, path: Path) -> None:
        processor = _sentencepiece_processor()
        try:
            processor.LoadFromSerializedProto(path.read_bytes())
        except RuntimeError as error:
            raise DataError(f"{path} is no sentencepiece model; copy or download it again") from error
        if processor.id_to_piece(PAD_ID) != "</s>":
            raise DataError(
                f"{path} must have '</s>' as id {PAD_ID}; found {processor.id_to_piece(PAD_ID)!r}"
            )
        self._processor = processor
        # Without a dummy prefix sentencepiece strips leading blanks. Encoded behind the word "<unk>" they
        # stay; the pieces of that word are then cut off, as in transformers.
        self._skipped = len(processor.encode(_UNKNOWN))

    def ids(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the ids of texts.

        Parameters
        ----------
        texts
            n texts of at most 63 tokens.

        Returns
        -------
        (n, 64) int64: the tokens, ``</s>``, and ``</s>`` again up to 64. The model was trained on full rows
        without a mask and reads its answer at the last position, so shorter rows mean something else.

        Raises
        ------
        UsageError
            If a text is empty or too long.
        """
        rows = np.full((len(texts), POSITIONS), PAD_ID, np.int64)
        for row, text in zip(rows, texts, strict=True):
            words = canonical(text)
            tokens = self._processor.encode(f"{_UNKNOWN}{_SPACE}{words}")[self._skipped :]
            if not words or len(tokens) >= POSITIONS:
                raise UsageError(
                    f"a text must have 1 to {POSITIONS - 1} tokens after punctuation is taken out; found "
                    f"{len(tokens) if words else 0} in {text!r}"
                )
            row[: len(tokens)] = tokens
        return rows


class SiglipText:
    """Text tower of a SigLIP checkpoint, in float32: prompts are few.

    Parameters
    ----------
    checkpoint
        A checkpoint with both towers and its tokenizer file, spiece.model.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "auto") -> None:
        self.checkpoint = checkpoint
        self.device = check_device_name(device)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode prompts.

        Parameters
        ----------
        texts
            n prompts of at most 63 tokens.

        Returns
        -------
        (n, dim) float32, un-normalised. Each prompt is a forward pass of its own, so a row depends on its
        prompt alone.

        Raises
        ------
        UsageError
            If a text is empty or too long.
        MissingWeights, DataError
            If weights or tokenizer are missing, damaged or of another kind.
        """
        ids = torch.from_numpy(self.tokens.ids(texts)).to(self._tower_device)
        with torch.inference_mode():
            rows = [self._tower(input_ids=row[None]).pooler_output.float().cpu() for row in ids]
        vectors: npt.NDArray[np.float32] = torch.cat([torch.empty(0, self.dim), *rows]).numpy()
        return vectors

    @property
    def dim(self) -> int:
        """Length of a vector."""
        config = self.checkpoint.config.get("text_config", {})
        return int(config.get("projection_size") or config.get("hidden_size", 768))

    @cached_property
    def tokens(self) -> SiglipTokens:
        """The tokenizer."""
        path = self.checkpoint.find(TOKENIZER_FILE)
        if path is None:
            raise DataError(
                f"{self.checkpoint.origin} has no {TOKENIZER_FILE}, SigLIP's tokenizer, so text cannot be encoded; "
                "images can. Copy it from the checkpoint that this one was made from"
            )
        return SiglipTokens(path)

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine, more than 0: the exponential of the stored number."""
        return exp(self._scalars["logit_scale"])

    @property
    def logit_bias(self) -> float:
        """What is added to the scaled cosine."""
        return self._scalars["logit_bias"]

    @cached_property
    def _scalars(self) -> dict[str, float]:
        files = weight_map(self.checkpoint)
        scalars: dict[str, float] = {}
        for name in ("logit_scale", "logit_bias"):
            if name not in files:
                raise DataError(
                    f"{self.checkpoint.origin} has no {name}; it is no SigLIP model with two towers"
                )
            (shard,) = open_shards(self.checkpoint, [files[name]])
            try:
                with safe_open(shard.path, framework="pt") as file:
                    scalars[name] = float(file.get_tensor(name).float().reshape(()))
            except (SafetensorError, RuntimeError) as error:
                raise damaged_tensors(shard.path, error) from error
        return scalars

    @cached_property
    def _tower_device(self) -> torch.device:
        return resolve_device(self.device)

    @cached_property
    def _tower(self) -> nn.Module:
        if "text_config" not in self.checkpoint.config:
            raise DataError(f"{self.checkpoint.origin} holds an image tower alone; it encodes no text")
        check_blobs(open_shards(self.checkpoint, weight_map(self.checkpoint).values()))
        tower = load_pretrained("SiglipTextModel", self.checkpoint, DTYPES["float32"], tower="text")
        return tower.to(self._tower_device)


def _sentencepiece_processor() -> Any:
    try:
        with warnings.catch_warnings():
            # Its generated types lack a module name, which Python 3.12 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            import sentencepiece
    except ImportError as error:
        raise MissingDependency(f"text needs sentencepiece: {INSTALL_LINE}") from error
    return sentencepiece.SentencePieceProcessor()
