"""Towers out of transformers: the only module that imports it, and the only one that knows its versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from embedstore.checkpoints.checkpoint import INSTALL_LINE, Checkpoint
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
        with _quiet(transformers):
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
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"the {tower} tower of {checkpoint.origin} does not load with transformers "
            f"{transformers.__version__}: {first_line}"
        ) from error
    require_all(set(found["missing_keys"]) | set(map(str, found["mismatched_keys"])), checkpoint, tower=tower)
    return frozen(model)


def headless_vision_model(config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """Build an image tower without a pooling head and without weights (on torch's ``meta`` device)."""
    transformers = import_transformers()
    with _quiet(transformers), torch.device("meta"):
        shape = transformers.SiglipVisionConfig(**{**config, "vision_use_head": False})
        shape._attn_implementation = "sdpa"
        model: nn.Module = transformers.SiglipVisionModel(shape).to(dtype)
    return model


def frozen(model: nn.Module) -> nn.Module:
    """Return the model for inference: no dropout, no gradients."""
    return model.eval().requires_grad_(requires_grad=False)


def require_all(missing: set[str], checkpoint: Checkpoint, *, tower: str) -> None:
    """Raise `DataError` if weights of a tower are missing or misshapen."""
    if missing:
        raise DataError(
            f"{checkpoint.origin} lacks {len(missing)} weights of the {tower} tower, or they have another shape "
            f"than its config.json says: {first_few(sorted(missing), shown=SHOWN_NAMES)}"
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
def _quiet(transformers: ModuleType) -> Iterator[None]:
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
