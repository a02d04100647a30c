"""One frame's grey values for the eye: small enough to be sent, in modality units, with the window to begin with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedstore.decoding.decode import DecodeJob, DecodeLimits, read_frame
from embedstore.errors import ImageRefused, Reason
from embedstore.images.hostile import open_regular
from embedstore.images.stored_image import DICOM, StoredImage
from embedstore.values.window import FloatArray, Window, levels_of, to_modality

# The longer side; 512 x 512 float32 is what one slot of a decoding process holds.
LONGEST_PX = 512
_CT_WINDOW_HU = (-160.0, 240.0)  # soft tissue: centre 40, width 400
_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True, eq=False)
class GreyValues:
    """A grey image as numbers.

    Parameters
    ----------
    values
        (h, w) float32 in modality units, at most `LONGEST_PX` each way, pixels square; padding is the lowest value.
    low, high
        The window to begin with: the file's own, for a CT without one that of soft tissue, else the 1st and 99th
        percentile.
    inverted
        The lowest value is white.
    unit
        Of the values, ``""`` where nothing is said.
    """

    values: npt.NDArray[np.float32]
    low: float
    high: float
    inverted: bool
    unit: str


def grey_values_of(job: DecodeJob, limits: DecodeLimits) -> GreyValues:
    """Read one frame of a DICOM file as grey values.

    Raises
    ------
    ImageRefused
        As `embedstore.decoding.decode.decode`, and with ``unsupported`` for colour and for pictures, which somebody
        has windowed already.
    """
    try:
        with open_regular(job.path, max_bytes=limits.file_bytes) as file:
            image, _ = read_frame(file, job, limits)
        return _values_of(image)
    except MemoryError as error:
        raise ImageRefused(
            Reason.TOO_LARGE, "decoding the image needs more memory than is allowed"
        ) from error
    except OSError as error:
        raise ImageRefused(Reason.UNREADABLE, f"reading the file failed: {error.strerror}") from error


def _values_of(image: StoredImage) -> GreyValues:
    if image.container != DICOM or image.pixels.ndim != 2:
        raise ImageRefused(Reason.UNSUPPORTED, "only grey DICOM images have values to be windowed")
    levels = levels_of(image.pixels, image.meaning)
    shown = to_modality(levels.stored, image.meaning.modality)
    used = shown[levels.present()]
    lowest = float(used.min()) if len(used) else 0.0
    shown[levels.padding] = lowest
    values = np.take(shown, levels.index).astype(np.float32)
    low, high = _window(image, used, values)
    return GreyValues(
        _reduced(values, image.pixel_aspect), low, high, image.meaning.inverted, image.meaning.unit
    )


def _window(image: StoredImage, used: FloatArray, values: npt.NDArray[np.float32]) -> tuple[float, float]:
    voi = image.meaning.voi
    if isinstance(voi, Window):
        # PS3.3 C.11.2.1.2.1: LINEAR counts the values of both ends.
        end = 1.0 if voi.function == "LINEAR" else 0.0
        centre = voi.center - end / 2
        low, high = centre - (voi.width - end) / 2, centre + (voi.width - end) / 2
    elif image.modality == "CT" and image.meaning.unit in ("", "HU"):
        low, high = _CT_WINDOW_HU
    elif len(used):
        low, high = (float(limit) for limit in np.percentile(values, _PERCENTILES))
    else:
        low = high = 0.0
    return (low, high) if low < high else (low, low + 1.0)


def _reduced(values: npt.NDArray[np.float32], pixel_aspect: float) -> npt.NDArray[np.float32]:
    """Return square pixels, at most `LONGEST_PX` each way, antialiased where there are fewer than before."""
    height, width = values.shape[0] * pixel_aspect, float(values.shape[1])
    shrink = min(1.0, LONGEST_PX / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    if size == (values.shape[1], values.shape[0]):
        return np.ascontiguousarray(values)
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR), np.float32)
