"""Towers out of transformers: the only module that imports it, and the only one that knows its versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from embedstore.checkpoints.checkpoint import INSTALL_LINE, Checkpoint
from embedstore.compute_device import is_out_of_memory
from embedstore.errors import DataError, MissingDependency, first_few

SHOWN_NAMES = 3


def load_pretrained(class_name: str, checkpoint: Checkpoint, dtype: torch.dtype, *, tower: str) -> nn.Module:
    """Load one tower of a SigLIP checkpoint, and nothing else of it, through ``from_pretrained``.

    Parameters
    ----------
    class_name
        ``SiglipVisionModel`` or ``SiglipTextModel``.
    checkpoint
        Its files must be there.
    dtype
        Arithmetic.
    tower
        ``image`` or ``text``, for messages.

    Raises
    ------
    DataError
        If a weight of the tower is missing, has another shape or cannot be read. (transformers itself
        fills what is missing with random numbers.)
    """
    transformers = import_transformers()
    try:
        with quiet_transformers(transformers):
            model, found = getattr(transformers, class_name).from_pretrained(
                checkpoint.folder,
                config=_tower_config(transformers, class_name, checkpoint),
                dtype=dtype,
                attn_implementation="sdpa",
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise _does_not_load(f"the {tower} tower", checkpoint, error) from error
    require_all(
        set(found["missing_keys"]) | set(map(str, found["mismatched_keys"])),
        checkpoint,
        part=f"{tower} tower",
    )
    return frozen(model)


def load_image_text_model(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """Load a whole model that reads images and writes text, through ``from_pretrained``.

    Parameters
    ----------
    checkpoint
        Its files must be there.
    dtype
        Arithmetic.

    Raises
    ------
    DataError
        If a weight is missing, has another shape or cannot be read.
    """
    transformers = import_transformers()
    try:
        with quiet_transformers(transformers):
            model, found = transformers.AutoModelForImageTextToText.from_pretrained(
                checkpoint.folder,
                dtype=dtype,
                attn_implementation="sdpa",
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise _does_not_load("the model", checkpoint, error) from error
    require_all(
        set(found["missing_keys"]) | set(map(str, found["mismatched_keys"])), checkpoint, part="model"
    )
    return frozen(model)


def load_processor(checkpoint: Checkpoint) -> Any:
    """Load what turns pictures and words into the input of a model that reads both: tokenizer and image processor.

    Raises
    ------
    DataError
        If the checkpoint has none, or one that cannot be read.
    """
    transformers = import_transformers()
    try:
        with quiet_transformers(transformers):
            return transformers.AutoProcessor.from_pretrained(
                checkpoint.folder, local_files_only=True, trust_remote_code=False
            )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, ImportError) as error:
        raise _does_not_load("the processor", checkpoint, error) from error


def headless_vision_model(config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """Build an image tower without a pooling head and without weights (on torch's ``meta`` device)."""
    transformers = import_transformers()
    with quiet_transformers(transformers), torch.device("meta"):
        shape = transformers.SiglipVisionConfig(**{**config, "vision_use_head": False})
        shape._attn_implementation = "sdpa"
        model: nn.Module = transformers.SiglipVisionModel(shape).to(dtype)
    return model


def frozen(model: nn.Module) -> nn.Module:
    """Return the model for inference: no dropout, no gradients."""
    return model.eval().requires_grad_(requires_grad=False)


def require_all(missing: set[str], checkpoint: Checkpoint, *, part: str) -> None:
    """Raise `DataError` if weights of a part of a checkpoint are missing or misshapen."""
    if missing:
        raise DataError(
            f"{checkpoint.origin} lacks {len(missing)} weights of the {part}, or they have another shape "
            f"than its config.json says: {first_few(sorted(missing), shown=SHOWN_NAMES)}"
        )


def _does_not_load(what: str, checkpoint: Checkpoint, error: Exception) -> DataError:
    first_line = str(error).partition("\n")[0]
    return DataError(
        f"{what} of {checkpoint.origin} does not load with transformers {import_transformers().__version__}: "
        f"{first_line}"
    )


def import_transformers() -> ModuleType:
    """Import transformers; two to three seconds, so only where weights are loaded.

    Raises
    ------
    MissingDependency
        If it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingDependency(f"this encoder needs transformers: {INSTALL_LINE}") from error
    return transformers


def _tower_config(transformers: ModuleType, class_name: str, checkpoint: Checkpoint) -> Any:
    """Return the tower's own configuration, out of a model's or a lone tower's config.json."""
    part, config_class = {
        "SiglipVisionModel": ("vision_config", transformers.SiglipVisionConfig),
        "SiglipTextModel": ("text_config", transformers.SiglipTextConfig),
    }[class_name]
    return config_class(**checkpoint.config.get(part, checkpoint.config))


@contextmanager
def quiet_transformers(transformers: ModuleType) -> Iterator[None]:
    """Silence reports and progress bars; what matters in them is checked and raised as an error.

    Loading one tower of two reports every weight of the other as unexpected, a hundred lines each time.
    """
    logging = transformers.utils.logging
    verbosity, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()
