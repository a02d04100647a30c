"""What a checkpoint's image processor does to a picture: followed where an encoder can, refused where it cannot.

transformers writes it as preprocessor_config.json, or within processor_config.json beside a tokenizer's part. Entries
that are left out have the defaults of its class, which are SigLIP's unless said otherwise here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedstore.checkpoints.checkpoint import Checkpoint, read_json
from embedstore.errors import DataError, MissingWeights

PROCESSOR_FILE = "preprocessor_config.json"
JOINT_FILE = "processor_config.json"
# PIL.Image.Resampling, whose numbers the file has; nearest, Lanczos, box and Hamming are none that SigLIPs use.
RESAMPLINGS = {2: "bilinear", 3: "bicubic"}
_DEFAULT_RESAMPLE = {"siglip": 3, "siglip_vision_model": 3, "gemma3": 2}
_NORMALISATION = {
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "rescale_factor": 1 / 255,
    "do_rescale": True,
    "do_normalize": True,
}
_SQUASH: dict[str, Any] = {
    "do_resize": True,
    "do_center_crop": False,
    "do_pad": False,
    "do_pan_and_scan": False,
}


@dataclass(frozen=True)
class ImageProcessor:
    """The settings of a checkpoint's image processor.

    Parameters
    ----------
    place
        The file, for messages.
    architecture
        ``model_type`` of the checkpoint, which decides what is meant by an entry that is left out.
    settings
        What the file says.
    """

    place: str
    architecture: str
    settings: Mapping[str, Any]

    def check_normalisation(self) -> None:
        """Refuse a processor that brings grey levels to another range than -1 to 1, as SigLIP was trained.

        Raises
        ------
        DataError
            With the value that differs.
        """
        for name, expected in _NORMALISATION.items():
            found = self._said(name, expected)
            if found != expected:
                raise DataError(
                    f"{self.place}: {name} must be {expected}, as SigLIP was trained; found {found}"
                )

    def squash_resample(self, size_px: int) -> str:
        """Return how the processor squashes a picture to the tower's square: ``bilinear`` or ``bicubic``.

        Parameters
        ----------
        size_px
            Side of the square.

        Raises
        ------
        DataError
            If it does anything else with the picture, such as a crop: preset ``hf`` cannot follow it then.
        """
        for name, expected in _SQUASH.items():
            found = self._said(name, expected)
            if bool(found) != expected:
                raise self._not_followed(name, expected, found)
        square = {"height": size_px, "width": size_px}
        size = self._said("size", square)
        if size != square:
            raise self._not_followed("size", square, size)
        number = self._said("resample", _DEFAULT_RESAMPLE.get(self.architecture, 3))
        if number not in RESAMPLINGS:
            known = " or ".join(f"{key} ({name})" for key, name in RESAMPLINGS.items())
            raise self._not_followed("resample", known, number)
        return RESAMPLINGS[number]

    def _said(self, name: str, otherwise: Any) -> Any:
        found = self.settings.get(name)
        return otherwise if found is None else found

    def _not_followed(self, name: str, expected: object, found: object) -> DataError:
        return DataError(
            f"{self.place}: preprocess 'hf' does what the image processor says, for which {name} must be"
            f" {expected}; found {found}. Choose 'pad' or 'eval'"
        )


def image_processor(checkpoint: Checkpoint) -> ImageProcessor | None:
    """Return the image processor of a checkpoint, or None if it has none.

    Raises
    ------
    MissingWeights
        If it belongs to a hub id and can be neither found in the cache nor fetched.
    DataError
        If the file is damaged.
    """
    path = checkpoint.find(PROCESSOR_FILE)
    if path is not None:
        return ImageProcessor(str(path), checkpoint.architecture, read_json(path))
    path = checkpoint.find(JOINT_FILE)
    settings = None if path is None else read_json(path).get("image_processor")
    return (
        ImageProcessor(str(path), checkpoint.architecture, settings) if isinstance(settings, dict) else None
    )


def check_normalisation(checkpoint: Checkpoint) -> None:
    """Check the processor of a checkpoint as `ImageProcessor.check_normalisation` does.

    A checkpoint without one, or one of the hub that is offline and has not cached it, goes unchecked: every
    SigLIP published so far has this range.

    Raises
    ------
    DataError
        With the value that differs.
    """
    try:
        processor = image_processor(checkpoint)
    except MissingWeights:
        return
    if processor is not None:
        processor.check_normalisation()


def squash_resample(checkpoint: Checkpoint, size_px: int) -> str:
    """Return what `ImageProcessor.squash_resample` does of a checkpoint; ``bicubic`` where it has no processor.

    Raises
    ------
    DataError, MissingWeights
        As `ImageProcessor.squash_resample` and `image_processor`.
    """
    processor = image_processor(checkpoint)
    return "bicubic" if processor is None else processor.squash_resample(size_px)
