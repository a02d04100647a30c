"""One image file -> one encoder input, or a refusal: header checks, decoding, recipe, preprocessing.

`decode` runs in the calling process and trusts only the checks that a header allows; a hostile file can
still crash or stall a codec, so `embedstore.decoding.pool` runs it in processes of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedstore.errors import ImageRefused, Note, Reason, UsageError
from embedstore.images.crop import CropBox, crop_to_square
from embedstore.images.file_kind import DICOM, HEAD_BYTES, file_kind
from embedstore.images.hostile import BoundedReader, open_regular
from embedstore.images.preprocess import MAX_ASPECT, ByteImage, PreprocessSpec, aspect_to_mend, preprocess
from embedstore.images.rendering import needs_series_range, render_with_notes
from embedstore.images.series_range import ValueCounts, count_values, merge_counts, series_range
from embedstore.images.stored_image import StoredImage, content_sha256
from embedstore.pictures.raster import read_raster


@dataclass(frozen=True)
class DecodeJob:
    """One image to decode.

    Parameters
    ----------
    path
        Absolute path; a name that is not UTF-8 has its bytes surrogate-escaped, as from `os.fsdecode`.
    frame
        Frame or page, from 0.
    modality
        DICOM modality code that overrides the file's own, or ``""``.
    value_range
        For MR: the modality values of the whole series that become 0 and 255 (`series_range`). None says
        that this file is a series of its own: the range is then taken over all its frames of one kind.
    ranges_by_kind
        For frames whose values are of another kind than plain magnitude (`StoredImage.value_kind`): their
        range. Where it is missing, `value_range` counts.
    crop
        The part of the image to show; None for all of it.
    """

    path: str
    frame: int = 0
    modality: str = ""
    value_range: tuple[float, float] | None = None
    ranges_by_kind: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    crop: CropBox | None = None

    def __post_init__(self) -> None:
        if not os.path.isabs(self.path):
            raise UsageError(f"path must be absolute; found {self.path!r}")
        if self.frame < 0:
            raise UsageError(f"frame must be 0 or more; found {self.frame}")
        plain = () if self.value_range is None else (self.value_range,)
        for low, high in (*plain, *self.ranges_by_kind.values()):
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise UsageError(f"value_range must be finite and ascending; found {(low, high)}")

    @property
    def picture(self) -> tuple[str, int] | None:
        """What several crops may be of, so that it is decoded once: path and frame; None for a whole image."""
        return None if self.crop is None else (self.path, self.frame)


@dataclass(frozen=True)
class DecodeLimits:
    """What a file may cost before it is refused.

    Parameters
    ----------
    file_bytes
        Size of the file; also of a deflated DICOM file once inflated. 1 GiB holds a 2,000-frame CT.
    pixels
        Rows x columns of one frame; 100 million is four times the largest mammogram.
    frames
        NumberOfFrames that a header may claim.
    timeout_s
        Seconds one image may take, start-up of a process not counted. Enforced by `DecoderPool` only.
    memory_bytes
        Address space of one decoding process. Enforced by `DecoderPool` only, and not by macOS.
    """

    file_bytes: int = 1 << 30
    pixels: int = 100_000_000
    frames: int = 20_000
    timeout_s: float = 60.0
    memory_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        for name in ("file_bytes", "pixels", "frames", "timeout_s", "memory_bytes"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be more than 0; found {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class EncoderInput:
    """One image as the encoder takes it.

    Parameters
    ----------
    pixels
        (size, size) grey or (size, size, 3) RGB uint8.
    content_sha256
        32 bytes: digest of the decoded stored pixels, before windowing (`stored_image.content_sha256`); of a crop,
        digest of that and its place (`CropBox.sha256`).
    notes
        What was mended, guessed or left out on the way.
    aspect
        Columns of the picture for each of its rows, before it became a square; 1 of a crop, which is one.
    """

    pixels: npt.NDArray[np.uint8]
    content_sha256: bytes
    notes: frozenset[Note] = frozenset()
    aspect: float = 1.0


class Decoder(Protocol):
    """What turns jobs into outcomes, in order: `SerialDecoder`, or `DecoderPool` for hostile files."""

    def decode(self, jobs: Iterable[DecodeJob], *, ahead: int) -> Iterator[EncoderInput | ImageRefused]:
        """Yield one outcome for each job, in order, pulling at most `ahead` jobs beyond the current one."""
        ...

    def count_values(self, jobs: Iterable[DecodeJob], *, ahead: int) -> Iterator[ValueCounts | ImageRefused]:
        """Yield the value counts of each job's frame, in order (`series_range`)."""
        ...


@dataclass(frozen=True)
class SerialDecoder:
    """Decodes in this process: for tests and a handful of trusted images; no time or memory limit."""

    spec: PreprocessSpec
    limits: DecodeLimits = DecodeLimits()

    def decode(self, jobs: Iterable[DecodeJob], *, ahead: int = 0) -> Iterator[EncoderInput | ImageRefused]:
        """Yield one outcome for each job, in order; `ahead` is 0 here whatever is asked for."""
        del ahead
        last = LastPicture()
        for job in jobs:
            try:
                outcome: EncoderInput | ImageRefused = decode(job, self.spec, self.limits, last)
            except ImageRefused as refusal:
                outcome = refusal
            yield outcome

    def count_values(
        self, jobs: Iterable[DecodeJob], *, ahead: int = 0
    ) -> Iterator[ValueCounts | ImageRefused]:
        """Yield the value counts of each job's frame, in order."""
        del ahead
        for job in jobs:
            try:
                outcome: ValueCounts | ImageRefused = count_values_of(job, self.limits)
            except ImageRefused as refusal:
                outcome = refusal
            yield outcome


@dataclass(frozen=True, eq=False)
class _Picture:
    """A rendered image before it is brought to the encoder's size."""

    pixels: ByteImage
    content_sha256: bytes
    pixel_aspect: float
    notes: frozenset[Note]


@dataclass(eq=False)
class LastPicture:
    """The picture that the last crop was of, for further crops of it; one at a time.

    Parameters
    ----------
    decoded
        How many pictures were decoded for crops.
    """

    decoded: int = 0
    _key: tuple[object, ...] | None = None
    _picture: _Picture | None = None

    def of(self, key: tuple[object, ...], decoded: Callable[[], _Picture]) -> _Picture:
        """Return the picture of a key: the one that is kept, or one that is decoded now."""
        if self._picture is None or self._key != key:
            self._key = self._picture = None  # two large pictures need not have room
            self.decoded += 1
            self._picture = decoded()
            self._key = key
        return self._picture


def decode(
    job: DecodeJob, spec: PreprocessSpec, limits: DecodeLimits, last: LastPicture | None = None
) -> EncoderInput:
    """Decode, render and preprocess one image, or a crop of it.

    Parameters
    ----------
    job
        The image.
    spec, limits
        What it becomes, and within what.
    last
        Keeps the picture of a crop, which is not decoded again for the next crop of it unless its file was changed.

    Raises
    ------
    ImageRefused
        For everything that can be wrong with a file; the message does not repeat the path, which stands in
        the job. Any other exception is a defect of this program.
    """
    try:
        with open_regular(job.path, max_bytes=limits.file_bytes) as file:
            if job.crop is None:
                picture = _picture_of(file, job, spec, limits)
                pixels = preprocess(picture.pixels, spec, picture.pixel_aspect)
                notes = picture.notes | _aspect_notes(picture.pixel_aspect, spec)
                rows, columns = picture.pixels.shape[:2]
                return EncoderInput(pixels, picture.content_sha256, notes, columns / rows)
            key = _key_of(file, job)
            picture = (last or LastPicture()).of(key, lambda: _picture_of(file, job, spec, limits))
        pixels = crop_to_square(picture.pixels, job.crop, spec)
        return EncoderInput(pixels, job.crop.sha256(picture.content_sha256), picture.notes)
    except MemoryError as error:
        raise _too_much_memory() from error
    except OSError as error:  # the file was readable when it was opened: a disk or network failed since
        raise ImageRefused(Reason.UNREADABLE, f"reading the file failed: {error.strerror}") from error


def _picture_of(file: BoundedReader, job: DecodeJob, spec: PreprocessSpec, limits: DecodeLimits) -> _Picture:
    image, source = read_frame(file, job, limits)
    value_range = job.ranges_by_kind.get(image.value_kind, job.value_range)
    if value_range is None and needs_series_range(image):
        alike = (n for n in range(source.frames) if source.value_kind(n) == image.value_kind)
        frames = (_with_modality(source.read(frame), job) for frame in alike)
        value_range = series_range(merge_counts(map(count_values, frames)), spec.mri_range)
    rendering = render_with_notes(image, value_range)
    return _Picture(rendering.pixels, content_sha256(image.pixels), image.pixel_aspect, rendering.notes)


def _key_of(file: BoundedReader, job: DecodeJob) -> tuple[object, ...]:
    """Return what a rendered picture depends on: the file as it is now, and all of the job but the crop."""
    state = os.fstat(file.fileno())
    same_file = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    ranges = tuple(sorted(job.ranges_by_kind.items()))
    return job.path, same_file, job.frame, job.modality, job.value_range, ranges


def count_values_of(job: DecodeJob, limits: DecodeLimits) -> ValueCounts:
    """Count the modality values of one frame, for the range of its series.

    Raises
    ------
    ImageRefused
        As `decode`.
    """
    try:
        with open_regular(job.path, max_bytes=limits.file_bytes) as file:
            return count_values(read_frame(file, job, limits)[0])
    except MemoryError as error:
        raise _too_much_memory() from error
    except OSError as error:
        raise ImageRefused(Reason.UNREADABLE, f"reading the file failed: {error.strerror}") from error


class FrameSource(Protocol):
    """A file whose frames can be read one by one."""

    @property
    def frames(self) -> int:
        """How many there are."""
        ...

    def read(self, frame: int) -> StoredImage:
        """Decode one, from 0."""
        ...

    def value_kind(self, frame: int) -> str:
        """Return `StoredImage.value_kind` of one without decoding it."""
        ...


@dataclass(frozen=True)
class _SinglePicture:
    """A picture as a source of one frame: pages of a TIFF are images of their own, not a series."""

    image: StoredImage
    frames: int = 1

    def read(self, frame: int) -> StoredImage:
        del frame
        return self.image

    def value_kind(self, frame: int) -> str:
        del frame
        return self.image.value_kind


def read_frame(file: BoundedReader, job: DecodeJob, limits: DecodeLimits) -> tuple[StoredImage, FrameSource]:
    """Decode the frame of a job from an open file; errors as `decode`."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    name = file_kind(head)
    if name is not None and name != DICOM:
        image = read_raster(file.read(), name, frame=job.frame, max_pixels=limits.pixels)
        return _with_modality(image, job), _SinglePicture(_with_modality(image, job))
    if name is None:
        raise ImageRefused(
            Reason.UNREADABLE,
            f"the file is neither DICOM nor a known picture: it begins with {head[:8].hex(' ')}",
        )
    # pydicom takes 0.3 s to import, which a process that sees only PNGs need not pay.
    from embedstore.images.dicom import open_dicom

    source = open_dicom(
        file, max_pixels=limits.pixels, max_frames=limits.frames, max_inflated_bytes=limits.file_bytes
    )
    return _with_modality(source.read(job.frame), job), source


def _with_modality(image: StoredImage, job: DecodeJob) -> StoredImage:
    return replace(image, modality=job.modality) if job.modality else image


def _aspect_notes(pixel_aspect: float, spec: PreprocessSpec) -> frozenset[Note]:
    if aspect_to_mend(spec, pixel_aspect) != 1:
        return frozenset({Note.MADE_SQUARE})
    ignored = spec.square_pixels and max(pixel_aspect, 1 / pixel_aspect) > MAX_ASPECT
    return frozenset({Note.ASPECT_IGNORED}) if ignored else frozenset()


def _too_much_memory() -> ImageRefused:
    return ImageRefused(Reason.TOO_LARGE, "decoding the image needs more memory than is allowed")
