"""Small random checkpoints in their true formats, written by transformers' own ``save_pretrained``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file

SMALL_VISION = {
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 42,
    "patch_size": 14,
}
SMALL_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 100,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
# google/medsiglip-448's config.json
FULL_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 448,
    "patch_size": 14,
}
TINY_GEMMA_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
_SENTENCES = (
    "chest radiograph with pleural effusion",
    "normal frontal view of the wrist",
    "a photo of a fracture of the left elbow",
    "no acute abnormality in the lumbar spine",
    "severe canal stenosis at the fourth level",
)


@contextmanager
def silent_transformers() -> Iterator[None]:
    """Keep progress bars and advice about tiny vocabularies out of the test report."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity_warning()
        transformers.utils.logging.enable_progress_bar()


def write_siglip(folder: Path, *, seed: int = 0, **vision: Any) -> transformers.SiglipModel:
    """Write a SigLIP checkpoint with its tokenizer and return the model."""
    with silent_transformers():
        torch.manual_seed(seed)
        config = transformers.SiglipConfig(vision_config=SMALL_VISION | vision, text_config=dict(SMALL_TEXT))
        model = transformers.SiglipModel(config).eval()
        roughen(model)
        model.logit_scale.data.fill_(4.7)
        model.logit_bias.data.fill_(-16.5)
        model.save_pretrained(folder)
    write_tokenizer(folder)
    return model


def write_full_size(folder: Path, **vision: Any) -> transformers.SiglipModel:
    """Write MedSigLIP's image tower with a small text tower: 1.7 GB of numbers, drawn cheaply."""
    with silent_transformers():
        config = transformers.SiglipConfig(vision_config=FULL_VISION | vision, text_config=dict(SMALL_TEXT))
        with torch.device("meta"):
            model = transformers.SiglipModel(config)
        model = model.to_empty(device="cpu").eval()
        draw(model)
        for embeddings in (model.vision_model.embeddings, model.text_model.embeddings):
            positions = embeddings.position_ids
            positions.copy_(torch.arange(positions.shape[-1]).expand(positions.shape))
        model.save_pretrained(folder)
    return model


def draw(model: torch.nn.Module) -> None:
    """Fill a model whose numbers are not set: uniform, with the spread that keeps activations near one."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        spread = 0.02 if parameter.ndim == 1 else (3 / parameter[0].numel()) ** 0.5
        parameter.data.uniform_(-spread, spread, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1


def write_image_tower(folder: Path, **vision: Any) -> transformers.SiglipVisionModel:
    """Write a checkpoint of an image tower alone, as a fine-tune exports it."""
    with silent_transformers():
        torch.manual_seed(1)
        model = transformers.SiglipVisionModel(
            transformers.SiglipVisionConfig(**SMALL_VISION | vision)
        ).eval()
        roughen(model)
        model.save_pretrained(folder)
    return model


def write_gemma(folder: Path, **vision: Any) -> transformers.Gemma3ForConditionalGeneration:
    """Write a Gemma 3 checkpoint with a tiny language model, as transformers saves it, in one file."""
    with silent_transformers():
        torch.manual_seed(2)
        config = transformers.Gemma3Config(
            vision_config=SMALL_VISION | {"vision_use_head": False} | vision,
            text_config=dict(TINY_GEMMA_TEXT),
            mm_tokens_per_image=1,
            image_token_index=3,
            boi_token_index=4,
            eoi_token_index=5,
        )
        model = transformers.Gemma3ForConditionalGeneration(config).eval()
        roughen(model)
        model.save_pretrained(folder)
    return model


def roughen(model: torch.nn.Module) -> None:
    """Make biases, layer norms and heads random too: an initial zero would hide that it is not loaded."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def split_shards(folder: Path, prefix_to: str) -> None:
    """Rewrite a Gemma checkpoint as two shards: language model, and image tower under the prefix `prefix_to`."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    old = next(name for name in tensors if name.endswith("embeddings.patch_embedding.weight"))
    prefix_from = old.removesuffix("embeddings.patch_embedding.weight")
    tower = {name for name in tensors if name.startswith(prefix_from)}
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    shards = {
        first: {name: tensor for name, tensor in tensors.items() if name not in tower},
        second: {prefix_to + name.removeprefix(prefix_from): tensors[name] for name in tower},
    }
    for filename, content in shards.items():
        save_file(content, folder / filename)
    weight_map = {name: filename for filename, content in shards.items() for name in content}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def write_tokenizer(folder: Path) -> None:
    """Train a sentencepiece model of 100 pieces with SigLIP's special ids, as spiece.model."""
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_SENTENCES * 20),
            model_writer=file,
            vocab_size=100,
            hard_vocab_limit=False,
            pad_id=-1,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            control_symbols=["<ctrl>"],
            add_dummy_prefix=False,
            minloglevel=2,
        )


def edit_config(folder: Path, **changes: Any) -> None:
    """Change entries of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cache_snapshot(hub: Path, repo_id: str, source: Path, *, commit: str = "c" * 40) -> Path:
    """Lay `source` out as a repository in the hub's cache, and return its snapshot folder."""
    import hashlib

    repository = hub / f"models--{repo_id.replace('/', '--')}"
    snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for path in source.iterdir():
        digest = hashlib.new("sha256" if path.suffix == ".safetensors" else "sha1", path.read_bytes())
        blob = blobs / digest.hexdigest()
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def pictures(count: int, *, size: int = 42, seed: int = 0) -> np.ndarray:
    """Return (count, size, size) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)


def by_hand(grey: np.ndarray) -> torch.Tensor:
    """Return (n, 3, size, size) float32 as the image processor makes it from grey pictures."""
    scaled = torch.from_numpy((grey * np.float64(1 / 255)).astype(np.float32))
    return ((scaled - 0.5) / 0.5)[:, None].expand(-1, 3, -1, -1)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error of any number, relative to the largest number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows."""
    return (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


# A tokenizer of characters, in which the codes of a compact answer stand alone between two longer pieces.
_MARKS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
_IMAGE_MARKS = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
_CHARACTERS = (*map(chr, range(33, 127)), "\u2581", "\n")
_MERGES = [('"', ":"), ('":', '"'), ('"', ","), ('",', '"')]
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def write_answering_gemma(
    folder: Path, *, seed: int = 5, merges: list[tuple[str, str]] | None = None
) -> transformers.Gemma3ForConditionalGeneration:
    """Write a tiny Gemma 3 that reads images and writes text, with tokenizer, template and processor."""
    with silent_transformers():
        processor = _processor(_MERGES if merges is None else merges)
        tokenizer = processor.tokenizer
        torch.manual_seed(seed)
        config = transformers.Gemma3Config(
            vision_config=SMALL_VISION | {"vision_use_head": False},
            text_config=TINY_GEMMA_TEXT
            | {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "layer_types": ["sliding_attention", "full_attention"],
                "sliding_window": 256,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": 4096,
            },
            mm_tokens_per_image=9,
            image_token_index=tokenizer.image_token_id,
            boi_token_index=tokenizer.boi_token_id,
            eoi_token_index=tokenizer.eoi_token_id,
        )
        model = transformers.Gemma3ForConditionalGeneration(config).eval()
        roughen(model)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return model


def _processor(merges: list[tuple[str, str]]) -> Any:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    pieces = [*_MARKS, *_IMAGE_MARKS.values(), *_CHARACTERS, *("".join(pair) for pair in merges)]
    tokenizer = transformers.GemmaTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=merges,
        additional_special_tokens=list(_MARKS[5:]),
        extra_special_tokens=_IMAGE_MARKS,
    )
    size = SMALL_VISION["image_size"]
    images = Gemma3ImageProcessorPil(
        size={"height": size, "width": size}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return transformers.Gemma3Processor(images, tokenizer, chat_template=_TEMPLATE, image_seq_length=9)
