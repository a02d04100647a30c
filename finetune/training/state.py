"""The state of a training on disk: what a kill at any moment does not lose, without pickle.

```
state.json                  sealed; names the file of tensors with its digest, and says how far the training came
state-<step>.safetensors    weights that learn, AdamW's two moments, running means, the best weights so far
metrics.jsonl               a line for each logged step and each validation
```

The file of tensors is written first and ``state.json`` last, so that there is always a whole state: the last good one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from embedstore.errors import DataError, UsageError
from embedstore.files import (
    content_sha256,
    make_folder_durable,
    sealed,
    sha256_bytes,
    sha256_file,
    write_durable,
)
from finetune.recipe import differences

STATE_FILE = "state.json"
METRICS_FILE = "metrics.jsonl"
_TENSORS = "state-{step:08d}.safetensors"


@dataclass(frozen=True)
class State:
    """A state that was read: the numbers by which a training goes on.

    Parameters
    ----------
    progress
        Plain JSON values.
    tensors
        Name -> tensor, on the CPU.
    """

    progress: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


def save_state(
    folder: Path,
    question: Mapping[str, Any],
    progress: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Keep a state, durably; the one before is there until this one is whole.

    Parameters
    ----------
    folder
        Of the training; made if missing.
    question
        What decides the result: a training goes on only under the same.
    progress, tensors
        As `State`.
    """
    make_folder_durable(folder)
    name = _TENSORS.format(step=progress["step"])
    payload = safetensors.torch.save(
        {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    )
    write_durable(folder / name, payload, label="finetune-tensors")
    document = {
        "question": question,
        "progress": progress,
        "tensors": {"file": name, "sha256": sha256_bytes(payload)},
    }
    text = json.dumps(sealed(json.loads(json.dumps(document))), indent=1, sort_keys=True)
    write_durable(folder / STATE_FILE, text.encode(), label="finetune-state")
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def read_state(folder: Path, question: Mapping[str, Any]) -> State | None:
    """Read the last whole state; None where there is none.

    Raises
    ------
    UsageError
        If it is of another question: what differs is listed.
    DataError
        If a file is damaged or was edited.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_bytes())
        stated, tensors = document["sha256"], document["tensors"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error!r}); remove {folder} and fine-tune from the start"
        ) from error
    if content_sha256(document) != stated:
        raise DataError(
            f"{path} was changed after it was written; remove {folder} and fine-tune from the start"
        )
    found = differences(document["question"], json.loads(json.dumps(question)))
    if found:
        raise UsageError(
            f"{folder} holds a training with other settings, which cannot be gone on with: {'; '.join(found)}. Give "
            "the same ones, or another `out`"
        )
    file = folder / tensors["file"]
    if not file.is_file() or sha256_file(file) != tensors["sha256"]:
        raise DataError(
            f"{file} is missing or is not what was written; remove {folder} and fine-tune from the start"
        )
    try:
        return State(document["progress"], safetensors.torch.load_file(file))
    except SafetensorError as error:
        raise DataError(
            f"{file} cannot be read: {error}; remove {folder} and fine-tune from the start"
        ) from error


def require_fresh(folder: Path) -> None:
    """Refuse a folder that holds an unfinished training; raises UsageError."""
    if (folder / STATE_FILE).is_file():
        raise UsageError(
            f"{folder} holds an unfinished training; go on with it by `resume`, remove it, or give another `out`"
        )


def drop_state(folder: Path) -> None:
    """Remove the state of a training that is finished; its metrics stay."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    for file in folder.glob("state-*.safetensors"):
        file.unlink(missing_ok=True)


class MetricsLog:
    """Lines of JSON, and TensorBoard's files where it is installed.

    Parameters
    ----------
    folder
        Of the training.
    step
        Where it begins: lines of later steps, which a killed training left, are taken out.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        make_folder_durable(folder)
        self.path = folder / METRICS_FILE
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= step] if step else []
        self.path.write_text("".join(f"{line}\n" for line in kept))
        self._board = _tensorboard(folder)

    def add(self, step: int, **numbers: float | int | str) -> None:
        """Write one line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        if self._board is not None:
            for name, number in numbers.items():
                if isinstance(number, int | float):
                    self._board.add_scalar(name, number, step)

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut off by the kill


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))
