"""Pictures for the page: decoded in processes that may die, encoded anew, and kept while there is room."""

from __future__ import annotations

import io
import struct
import threading
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedstore.decoding.decode import DecodeJob, DecodeLimits
from embedstore.decoding.grey_values import GreyValues
from embedstore.decoding.pool import DecoderPool
from embedstore.errors import DataError, ImageRefused
from embedstore.images.preprocess import PreprocessSpec

THUMBNAIL_PX = 192
LARGE_PX = 512
SIZES = {"small": THUMBNAIL_PX, "large": LARGE_PX}
# Some 4,000 thumbnails.
_KEPT_BYTES = 24 << 20
_QUALITY = 82
# A page waits for a picture for as long as a person does.
_LIMITS = DecodeLimits(timeout_s=20.0)
_HEADER = struct.Struct("<IIffI")  # height, width, low, high, inverted


class Pictures:
    """Decodes pictures in processes of its own; close it at the end. For several threads at once.

    Parameters
    ----------
    workers
        Decoding processes, started with the first picture.
    """

    def __init__(self, *, workers: int = 1) -> None:
        self._workers = workers
        self._stack = ExitStack()
        self._pool: DecoderPool | None = None
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def jpeg(self, job: DecodeJob, size: str, *, key: Hashable = None) -> bytes:
        """Return a picture as JPEG of `SIZES` pixels square; with a `key` it is kept.

        Raises
        ------
        DataError
            If the file cannot be decoded; the message names no path.
        """
        held = None if key is None else self._held((key, size))
        if held is not None:
            return held
        (outcome,) = self._running().decode(iter([job]), ahead=0)
        if isinstance(outcome, ImageRefused):
            raise DataError(f"no picture: {outcome.reason}: {outcome.message}")
        found = jpeg_of(outcome.pixels, SIZES[size])
        if key is not None:
            self._keep((key, size), found)
        return found

    def grey(self, job: DecodeJob) -> bytes:
        """Return the grey values of a DICOM frame as `packed_grey`; raises DataError where it has none."""
        (outcome,) = self._running().grey_values(iter([job]), ahead=0)
        if isinstance(outcome, ImageRefused):
            raise DataError(f"no window: {outcome.reason}: {outcome.message}")
        return packed_grey(outcome)

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._pool = None
            self._stack.close()

    def _running(self) -> DecoderPool:
        with self._lock:
            if self._pool is None:
                pool = DecoderPool(PreprocessSpec(size_px=LARGE_PX), workers=self._workers, limits=_LIMITS)
                self._pool = self._stack.enter_context(pool)
            return self._pool

    def _held(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: Hashable, found: bytes) -> None:
        with self._lock:
            self._bytes += len(found) - len(self._kept.pop(key, b""))
            self._kept[key] = found
            while self._bytes > _KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])


def jpeg_of(pixels: npt.NDArray[np.uint8], size_px: int) -> bytes:
    """Return a square of pixels, (n, n) or (n, n, 3), as JPEG; nothing of the file that it came from is in it."""
    picture = Image.fromarray(pixels)
    if picture.width != size_px:
        picture = picture.resize((size_px, size_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def packed_grey(grey: GreyValues) -> bytes:
    """Return height, width, window and whether it is inverted (20 bytes), and the values as float32, little-endian."""
    height, width = grey.values.shape
    head = _HEADER.pack(height, width, grey.low, grey.high, int(grey.inverted))
    return head + np.ascontiguousarray(grey.values, "<f4").tobytes()
