"""An encoder out of an adapter that others trained: merged into its base, and kept like a fine-tuned one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from embedstore.encoders.registry import image_encoder
from embedstore.encoders.tower import TowerEncoder
from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.finetuned.encoder_folder import ADAPTER_FOLDER, EncoderFolder
from embedstore.finetuned.trained_patients import trained_patients
from embedstore.generation.adapter import CONFIG_FILE, WEIGHTS_FILE
from finetune.towers.adapters import merge_adapter
from finetune.towers.export import Trained, require_free, write_encoder
from finetune.towers.trainable_blocks import changed_of


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """An adapter and the encoder that it belongs to.

    Parameters
    ----------
    adapter
        PEFT's folder.
    out
        Folder of the encoder.
    encoder, revision, preset, pooling
        The base, as `embedstore.encoders.registry.image_encoder`.
    """

    adapter: StrPath
    out: StrPath
    encoder: str
    revision: str | None = None
    preset: str | None = None
    pooling: str | None = None


def adopt(job: Adoption, say: Callable[[str], None] = lambda line: None) -> EncoderFolder:
    """Merge an adapter into its base in float32 and leave the encoder as a folder.

    Nobody knows on whom it was trained: its list of patients is empty, and its facts say so.

    Raises
    ------
    UsageError
        If the base has no tower of SigLIP's kind, or `out` is taken.
    DataError
        If the adapter is of another base or not whole.
    """
    out, folder = Path(job.out), Path(job.adapter).expanduser()
    require_free(out)
    base = image_encoder(
        job.encoder,
        preset=job.preset,
        device="cpu",
        dtype="float32",
        revision=job.revision,
        pooling=job.pooling,
    )
    if not isinstance(base, TowerEncoder):
        raise UsageError(f"`encoder` must be a SigLIP or Gemma 3 checkpoint; {job.encoder!r} has no blocks")
    base.report_to(say)
    tower = base.load_tower(torch.float32)
    names = merge_adapter(tower, folder)
    salt = base.identity.weights_sha256
    return write_encoder(
        out,
        Trained(
            base=base,
            changed=changed_of(tower, base.load_tower(torch.float32), names),
            head=None,
            method="adapter",
            recipe={},
            patients=trained_patients([], [], salt=salt),
            training={"patients_known": False},
            arithmetic="unknown",
            files={
                f"{ADAPTER_FOLDER}/{name}": (folder / name).read_bytes()
                for name in (CONFIG_FILE, WEIGHTS_FILE)
            },
        ),
    )
