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
from pydicom.pixels.utils import as_pixel_options

from embedstore.errors import ImageRefused, Note, Reason
from embedstore.images.dicom_frame import decode_frame
from embedstore.images.dicom_header import pixel_element, read_header
from embedstore.images.dicom_syntax import Codec, codec_for
from embedstore.images.hostile import BoundedReader, kind_of, refusing
from embedstore.images.stored_image import DICOM, StoredImage, grey_if_equal
from embedstore.values.frame_attributes import pixel_aspect, value_kind
from embedstore.values.grey_meaning import grey_meaning, is_capture, stored_range
from embedstore.values.lookup_tables import palette_colours
from embedstore.values.stored_bits import StoredBits, stored_values
from embedstore.values.window import NO_MEANING, StoredArray

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "XYB")
_PALETTE = "PALETTE COLOR"
_LOSSY = (
    uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K,
    "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112",  # JPEG XL, recompressed and any
)  # fmt: skip
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
            words, precision = self._decoded(frame, codec)
            pixels, notes = self._values(words, precision)
            if photometric == _PALETTE:
                pixels, signs = palette_colours(pixels, self.header, inputs=stored_range(self.header))
                notes |= signs
        if pixels.ndim not in {2, 3} or (
            pixels.ndim == 3 and (pixels.shape[2] != 3 or pixels.dtype.kind != "u")
        ):
            raise ImageRefused(
                Reason.UNSUPPORTED,
                f"pixels must be grey or unsigned RGB; found {pixels.shape} {pixels.dtype}",
            )
        bits = self.bits_stored or 8 * pixels.dtype.itemsize
        colour = pixels.ndim == 3
        if colour:
            pixels = grey_if_equal(pixels)
            bits = 8 * pixels.dtype.itemsize if photometric == _PALETTE else bits
        with refusing("the header's values cannot be read", told_by=kind_of):
            keyword = self.options["pixel_keyword"]
            return StoredImage(
                _narrowest(pixels, bits),
                DICOM,
                self.modality,
                NO_MEANING if colour else grey_meaning(self.header, frame, pixel_keyword=keyword),
                bits,
                # What was stored as colour is a picture, also where its channels are equal.
                is_capture=colour or is_capture(self.header),
                pixel_aspect=pixel_aspect(self.header, frame),
                value_kind=self.value_kind(frame),
                notes=notes,
            )

    def value_kind(self, frame: int) -> str:
        """Return what a frame's values are, where they are not plain magnitude of an MR image."""
        with refusing("the header's values cannot be read", told_by=kind_of):
            return value_kind(self.header, frame) if self.modality == "MR" else ""

    def _values(self, words: StoredArray, precision: int | None) -> tuple[StoredArray, frozenset[Note]]:
        """Return the stored values of decoded words, and what was mended."""
        if words.dtype.kind == "f":
            return words, frozenset()
        bits = StoredBits.from_options(
            self.options | {"bits_stored": self.bits_stored}, self.header.get("HighBit")
        )
        # A stream that is said to be lossless keeps what lies beside the value; a lossy one only errs.
        lossy = self.syntax in _LOSSY and self.header.get("LossyImageCompression") != "00"
        return stored_values(words, bits, precision=precision, lossy=lossy)

    def _decoded(self, frame: int, codec: Codec) -> tuple[StoredArray, int | None]:
        """Return a frame's words, and the bits of a sample in its codestream; None where words are stored."""
        if codec is Codec.NATIVE:
            self._check_native_length()
            self.stream.seek(self.pixels_start)
            pixels, _ = get_decoder(self.syntax).as_array(self.stream, index=frame, **self.options)
            return pixels, None
        self._check_fragments()
        self.stream.seek(self.pixels_start)
        content = get_frame(
            self.stream, frame, number_of_frames=self.frames,
            extended_offsets=self.options.get("extended_offsets"),
        )  # fmt: skip
        return decode_frame(content, codec, self.options)

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
    # Which bits of a word are its value is for `stored_bits` to say, for every syntax alike.
    options["correct_unused_bits"] = False
    return DicomFile(header, syntax, frames, modality, bits_stored, options, stream, stream.tell(), length)


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
