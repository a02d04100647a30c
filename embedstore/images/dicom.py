"""DICOM file -> stored pixels of one frame, with everything that rendering needs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import as_pixel_options

from embedstore.errors import ImageRefused, Reason
from embedstore.images.dicom_frame import decode_frame
from embedstore.images.dicom_header import pixel_element, read_header
from embedstore.images.dicom_meaning import grey_meaning
from embedstore.images.dicom_syntax import Codec, codec_for
from embedstore.images.hostile import BoundedReader, kind_of, refusing
from embedstore.images.stored_image import DICOM, StoredImage, grey_if_equal
from embedstore.images.window import GreyMeaning, StoredArray

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "XYB")
_PALETTE = "PALETTE COLOR"
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A parsed header and the place of the pixels in an open stream.

    Parameters
    ----------
    header
        All elements before the pixels.
    syntax
        Transfer syntax.
    frames
        Number of frames.
    modality
        DICOM modality code, or ``""``.
    bits_stored
        Significant bits of a value, or 0 where the header does not say.
    options
        The Image Pixel module as `pydicom.pixels` wants it.
    stream, pixels_start, pixels_length
        Where the value of the pixel element lies; the length is that of the header.
    """

    header: Dataset
    syntax: uid.UID
    frames: int
    modality: str
    bits_stored: int
    options: dict[str, Any]
    stream: BinaryIO
    pixels_start: int
    pixels_length: int

    def read(self, frame: int) -> StoredImage:
        """Decode one frame, from 0.

        Raises
        ------
        ImageRefused
            ``no-pixels`` for a frame that does not exist, ``unsupported`` for a syntax or colour space
            without a decoder, ``unreadable`` for what is malformed or truncated.
        """
        if frame >= self.frames:
            raise ImageRefused(
                Reason.NO_PIXELS, f"frame {frame} was asked for; the file has {self.frames}, counted from 0"
            )
        codec = codec_for(self.syntax)
        photometric = str(self.options.get("photometric_interpretation"))
        if photometric not in (*_GREY, *_COLOUR, _PALETTE):
            raise ImageRefused(
                Reason.UNSUPPORTED, f"PhotometricInterpretation {photometric[:16]!r} has no conversion to RGB"
            )
        with refusing("the pixels cannot be decoded"):
            pixels = self._decoded(frame, codec)
            if photometric == _PALETTE:
                pixels = apply_color_lut(pixels, self.header)
        if pixels.ndim not in {2, 3} or (
            pixels.ndim == 3 and (pixels.shape[2] != 3 or pixels.dtype.kind != "u")
        ):
            raise ImageRefused(
                Reason.UNSUPPORTED,
                f"pixels must be grey or unsigned RGB; found {pixels.shape} {pixels.dtype}",
            )
        bits = self.bits_stored or 8 * pixels.dtype.itemsize
        if pixels.ndim == 3:
            grey = grey_if_equal(pixels)
            bits = 8 * pixels.dtype.itemsize if photometric == _PALETTE else bits
            return StoredImage(_narrowest(grey, bits), DICOM, self.modality, GreyMeaning(), bits)
        with refusing("the header's values cannot be read", told_by=kind_of):
            meaning = grey_meaning(self.header, frame)
        return StoredImage(_narrowest(pixels, bits), DICOM, self.modality, meaning, bits)

    def _decoded(self, frame: int, codec: Codec) -> StoredArray:
        if codec is Codec.NATIVE:
            self._check_native_length()
            self.stream.seek(self.pixels_start)
            pixels, _ = get_decoder(self.syntax).as_array(self.stream, index=frame, **self.options)
            return pixels
        self._check_fragments()
        self.stream.seek(self.pixels_start)
        content = get_frame(
            self.stream, frame, number_of_frames=self.frames,
            extended_offsets=self.options.get("extended_offsets"),
        )  # fmt: skip
        words, _ = decode_frame(content, codec, self.options)
        return significant_bits(words, self.bits_stored)

    def _check_native_length(self) -> None:
        bits = self.options["bits_allocated"]
        samples = self.options["samples_per_pixel"]
        if self.options["photometric_interpretation"] == "YBR_FULL_422":
            samples = 2  # the two colours of a pair of pixels are shared
        needed = (self.options["rows"] * self.options["columns"] * samples * bits * self.frames + 7) // 8
        end = self.stream.seek(0, io.SEEK_END)
        available = min(self.pixels_length, end - self.pixels_start)
        if available < needed:
            raise ImageRefused(
                Reason.UNREADABLE,
                f"the pixels are truncated: {needed:,} bytes are needed, {available:,} are there",
            )

    def _check_fragments(self) -> None:
        """Walk over the fragments: each must lie in the file, and a delimiter must end them."""
        end = self.stream.seek(0, io.SEEK_END)
        place = self.pixels_start
        while place + 8 <= end:
            self.stream.seek(place)
            item = self.stream.read(8)
            length = int.from_bytes(item[4:], "little")
            if item[:4] == b"\xfe\xff\xdd\xe0":
                return
            if item[:4] != b"\xfe\xff\x00\xe0" or length == _UNDEFINED_LENGTH:
                raise ImageRefused(Reason.UNREADABLE, "the compressed pixels are not a sequence of fragments")
            place += 8 + length
        raise ImageRefused(
            Reason.UNREADABLE, "the compressed pixels are truncated: their end marker is missing"
        )


def open_dicom(
    file: BoundedReader, *, max_pixels: int, max_frames: int, max_inflated_bytes: int
) -> DicomFile:
    """Parse the header of a DICOM file and check what it claims, without reading the pixels.

    Parameters
    ----------
    file
        Positioned at the start.
    max_pixels, max_frames, max_inflated_bytes
        Limits for rows x columns, for NumberOfFrames, and for a deflated file once inflated.

    Raises
    ------
    ImageRefused
        ``no-pixels`` if the file holds no image or one without area, ``too-large`` beyond a limit, and
        ``unreadable`` if the header is malformed.
    """
    with refusing("the DICOM header cannot be read", told_by=kind_of):
        header, syntax, stream = read_header(file, max_inflated_bytes)
        element = pixel_element(stream, header)
        options = as_pixel_options(header) | element
        frames = int(options["number_of_frames"])
        modality = str(header.get("Modality") or "").strip().upper()[:16]
        bits_stored = int(options.get("bits_stored") or 0)
        for name in ("rows", "columns", "samples_per_pixel", "bits_allocated"):
            if not isinstance(options.get(name), int):
                raise ImageRefused(Reason.NO_PIXELS, f"the file describes no image: {name} is missing")
    rows, columns = options["rows"], options["columns"]
    if rows < 1 or columns < 1 or frames < 1:
        raise ImageRefused(Reason.NO_PIXELS, f"the image has no area: {rows} x {columns} x {frames} frames")
    if rows * columns > max_pixels or frames > max_frames:
        raise ImageRefused(
            Reason.TOO_LARGE,
            f"an image may have at most {max_pixels:,} pixels in {max_frames:,} frames;"
            f" the header says {rows} x {columns} in {frames:,}",
        )
    length = options.pop("pixels_length")
    return DicomFile(header, syntax, frames, modality, bits_stored, options, stream, stream.tell(), length)


def significant_bits(pixels: StoredArray, bits: int) -> StoredArray:
    """Return stored values without what lies above BitsStored, which is no part of them (PS3.5 8.1.1).

    Parameters
    ----------
    pixels
        Integers, of the sign that PixelRepresentation says.
    bits
        BitsStored, or 0 where the header does not say.
    """
    spare = 8 * pixels.dtype.itemsize - bits
    if not bits or spare <= 0 or pixels.dtype.kind == "f":
        return pixels
    if pixels.dtype.kind == "u" and int(pixels.max(initial=0)) < 1 << bits:  # nothing there, as nearly always
        return pixels
    return (pixels << spare) >> spare


def _narrowest(pixels: StoredArray, bits: int) -> StoredArray:
    """Return the pixels in the smallest integer type for `bits` that holds them.

    Codecs return 8-bit images of 16-bit files in either type; one image must have one type, and one digest.
    """
    if pixels.dtype.kind == "f":
        return pixels
    size = next((size for size in (1, 2, 4) if bits <= 8 * size), 4)
    kind = np.dtype(f"{pixels.dtype.kind}{size}")
    if kind.itemsize >= pixels.dtype.itemsize:
        return pixels.astype(kind, copy=False) if kind.itemsize == pixels.dtype.itemsize else pixels
    narrow = pixels.astype(kind)
    return narrow if np.array_equal(narrow, pixels) else pixels
