"""The folder of a fine-tuned encoder: what its base is, which weights changed, how and on whom it was trained.

```
encoder.json            sealed with its own digest: base, recipe, preprocess, pooling, training, digests of all files
changed.safetensors     every weight of the tower that differs from the base's, whole, in float32
head.safetensors        the classification head that was trained with it
trained_patients.json   digests of the patients (`embedstore.finetuned.trained_patients`)
adapter/                of LoRA: PEFT's files, as they were before they were merged
base/                   a link to the base, put there by whoever moved it
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.checkpoints.digest import measured_sha256
from embedstore.errors import DataError, MissingWeights
from embedstore.files import (
    StrPath,
    canonical_json,
    content_sha256,
    sealed,
    sha256_bytes,
    write_durable,
)
from embedstore.finetuned.trained_patients import FINETUNED, PATIENTS_FILE, TrainedPatients

ENCODER_FILE = "encoder.json"
CHANGED_FILE = "changed.safetensors"
HEAD_FILE = "head.safetensors"
ADAPTER_FOLDER = "adapter"
# Where the base, or a link to it, may be put when it is not where it was.
BASE_FOLDER = "base"
FORMAT, FORMAT_VERSION = "embedstore-encoder", 1
_NEEDED = (
    "base",
    "method",
    "recipe",
    "preset",
    "square_pixels",
    "pooling",
    "training",
    "arithmetic",
    "files",
)


@dataclass(frozen=True, kw_only=True)
class EncoderFolder:
    """A fine-tuned encoder on disk; `open_encoder_folder` makes one.

    Parameters
    ----------
    folder
        Where it lies.
    document
        Content of encoder.json.
    """

    folder: Path
    document: Mapping[str, Any]

    @property
    def base(self) -> Mapping[str, Any]:
        """``origin``, ``revision``, ``encoder`` and ``weights_sha256`` of what was fine-tuned."""
        base: Mapping[str, Any] = self.document["base"]
        return base

    @property
    def changed_file(self) -> Path:
        """The weights that differ from the base's."""
        return self.folder / CHANGED_FILE

    @property
    def weights_sha256(self) -> str:
        """Digest of the encoder's weights: the base's and those that changed."""
        changed = self.document["files"][CHANGED_FILE]
        return sha256_bytes(canonical_json({"base": self.base["weights_sha256"], "changed": changed}))

    @property
    def identity_options(self) -> dict[str, Any]:
        """What the identity of its vectors says of the training: base, recipe and patients, by their digests."""
        return {
            FINETUNED: {
                "base": self.base["encoder"],
                "base_weights_sha256": self.base["weights_sha256"],
                "method": self.document["method"],
                "arithmetic": self.document["arithmetic"]["passes"],
                "recipe_sha256": sha256_bytes(canonical_json(self.document["recipe"])),
                "patients_sha256": self.document["training"]["patients_sha256"],
            }
        }

    def patients(self) -> TrainedPatients:
        """Return whom it was trained on; raises DataError if the file was edited."""
        path = self.folder / PATIENTS_FILE
        self.require_unchanged(PATIENTS_FILE)
        return TrainedPatients.from_json(json.loads(path.read_bytes()), source=str(path))

    def require_unchanged(self, *names: str) -> None:
        """Refuse files that are not those that were written.

        Raises
        ------
        MissingWeights
            If one is missing.
        DataError
            If one was edited or is damaged.
        """
        for name in names or self.document["files"]:
            path, stated = self.folder / name, self.document["files"][name]
            if not path.is_file():
                raise MissingWeights(f"encoder {self.folder} is not whole: {name} is missing; copy it again")
            found = measured_sha256(path)
            if found != stated:
                raise DataError(
                    f"encoder {self.folder}: {name} was changed after the training: its sha256 is {found[:12]}, "
                    f"{ENCODER_FILE} says {stated[:12]}. Copy it again, or fine-tune again"
                )


def is_encoder_folder(origin: StrPath) -> bool:
    """Whether a folder holds a fine-tuned encoder."""
    return (Path(origin).expanduser() / ENCODER_FILE).is_file()


def open_encoder_folder(origin: StrPath) -> EncoderFolder:
    """Read what a fine-tuned encoder is; its weights are not touched.

    Raises
    ------
    DataError
        If encoder.json is missing, damaged, edited or of a later format.
    """
    folder = Path(origin).expanduser()
    path = folder / ENCODER_FILE
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be what a fine-tuning wrote; it cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path} must be what a fine-tuning wrote, with format {FORMAT!r}")
    if document.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path} must have format version {FORMAT_VERSION}; found {document.get('format_version')!r}. Use the "
            "release of embedstore that wrote it"
        )
    if content_sha256(document) != document.get("sha256"):
        raise DataError(
            f"{path} was changed after the training: its content has sha256 {content_sha256(document)[:12]}, it says "
            f"{str(document.get('sha256'))[:12]}. Copy it again, or fine-tune again"
        )
    lacking = [name for name in _NEEDED if name not in document]
    if lacking:
        raise DataError(f"{path} lacks {', '.join(lacking)}; fine-tune again")
    return EncoderFolder(folder=folder, document=document)


def write_encoder_document(folder: Path, document: Mapping[str, Any]) -> EncoderFolder:
    """Write encoder.json, last of all files: from then on the folder is an encoder."""
    content = sealed(
        json.loads(canonical_json({"format": FORMAT, "format_version": FORMAT_VERSION, **document}))
    )
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    write_durable(folder / ENCODER_FILE, text.encode(), label="encoder")
    return EncoderFolder(folder=folder, document=content)
