"""A small SigLIP image tower with random weights: an encoder to try every command with, which knows nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from embedstore.encoders.transformers_models import import_transformers, quiet_transformers
from embedstore.files import StrPath, write_durable

NAME = "siglip-random"
_NOTICE_FILE = "README.txt"
_NOTICE = """A SigLIP image tower with random weights, drawn by `embed demo`. It was trained on nothing and knows
nothing: it stands in for a real encoder (google/medsiglip-448) where commands are tried. No number that it gives
means anything.
"""
SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 112,
    "patch_size": 14,
}


def write_random_siglip(folder: StrPath, *, seed: int = 0) -> Path:
    """Write the tower as a checkpoint that `image_encoder` takes; the same seed gives the same weights.

    Parameters
    ----------
    folder
        Made if missing; a tower that is there already is replaced.
    seed
        Of the weights.

    Returns
    -------
    Path
        The folder.
    """
    folder, transformers = Path(folder), import_transformers()
    with quiet_transformers(transformers), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SHAPE))
        tower.save_pretrained(folder)
    write_durable(folder / _NOTICE_FILE, _NOTICE.encode(), label="random-siglip")
    return folder
