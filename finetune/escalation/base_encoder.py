"""The encoder that would be trained: whether it can be, its shape, and how fast it was seen to be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedstore.encoders.registry import encoder_names, image_encoder
from embedstore.encoders.tower import TowerEncoder
from embedstore.encoders.vision_tower import VisionShape
from embedstore.errors import DataError, EmbedError, UsageError
from embedstore.files import StrPath
from embedstore.identity import Identity
from embedstore.store.reader import Store
from finetune.escalation.cost import Rate


@dataclass(frozen=True, kw_only=True)
class BaseEncoder:
    """What is known of the encoder.

    Parameters
    ----------
    place
        Folder, hub id or registered name to give to ``embed finetune``.
    shape
        Of its tower; None where its configuration is not at hand.
    untrainable
        Why it cannot be trained; empty where it can.
    unknown
        Why its shape is not known; empty where it is.
    """

    place: str
    shape: VisionShape | None = None
    untrainable: str = ""
    unknown: str = ""


def trainable_base(identity: Identity, place: str | None = None) -> BaseEncoder:
    """Look up the encoder of a run; only its configuration is read.

    Parameters
    ----------
    identity
        Of the run's vectors.
    place
        Folder or hub id of its checkpoint; by default what its name says.

    Raises
    ------
    EmbedError
        If the place that was named holds no checkpoint.
    """
    name = identity.encoder
    if identity.declared:
        return BaseEncoder(
            place=name, untrainable=f"the vectors of {name} were imported, so its weights are not here"
        )
    if place is None and name not in encoder_names():
        return BaseEncoder(
            place=f"FOLDER_OF_{name}",
            unknown=f"the checkpoint of {name} has no registered name: `encoder` says where it lies",
        )
    try:
        encoder = image_encoder(place or name)
        if not isinstance(encoder, TowerEncoder):
            return BaseEncoder(
                place=place or name, untrainable=f"{name} has no weights that could be trained"
            )
        return BaseEncoder(place=place or name, shape=encoder.shape)
    except EmbedError as error:
        if place is not None:
            raise
        return BaseEncoder(place=name, unknown=str(error))


def measured_rates(
    stores: Sequence[Store], doctor: StrPath | None = None, *, encoder: str = ""
) -> Iterator[Rate]:
    """Yield how fast the encoder was: as ``embed doctor`` measured it, then as the stores were made.

    Parameters
    ----------
    stores
        Stores of its vectors.
    doctor
        File with the output of ``embed doctor --json``.
    encoder
        Its name, as doctor was given it.

    Raises
    ------
    UsageError
        If the file is not doctor's, or does not have this encoder's speed.
    DataError
        If it cannot be read.
    """
    if doctor is not None:
        yield _rate_of_doctor(Path(doctor), encoder)
    for store in stores:
        seconds: dict[str, float] = {}
        rows: dict[str, int] = {}
        for part in store.parts:
            for receipt in part.receipts.values():
                seconds[receipt.device] = seconds.get(receipt.device, 0.0) + receipt.seconds
                rows[receipt.device] = rows.get(receipt.device, 0) + receipt.stop - receipt.start
        for device in sorted(seconds, key=lambda name: (name.startswith("cpu"), name)):
            if seconds[device] > 0:
                yield Rate(
                    images_per_s=rows[device] / seconds[device],
                    device=device,
                    source=f"when {store.path.name} was made",
                )


def _rate_of_doctor(path: Path, encoder: str) -> Rate:
    try:
        findings = json.loads(path.read_text(encoding="utf-8"))["findings"]
        speeds = [finding for finding in findings if finding["topic"].startswith("speed of ")]
    except OSError as error:
        raise DataError(f"`doctor`: {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"`doctor` must be a file of `embed doctor --json`; {path} is none") from error
    for finding in speeds:
        named = finding["topic"].removeprefix("speed of ").rstrip("/").rpartition("/")[2]
        if named == encoder and "device" in finding:
            return Rate(
                images_per_s=float(finding["images_per_s"]),
                device=finding["device"],
                source="by embed doctor",
            )
    found = ", ".join(finding["topic"] for finding in speeds) or "no speed"
    raise UsageError(
        f"`doctor`: {path} must have the speed of {encoder}, on a device; it has {found}: run `embed doctor --encoder` "
        "with that encoder"
    )
