"""Pictures through a tower in forward passes of one fixed shape.

Matrix products round differently for another shape: the same picture in a batch of 1 and of 4 differs by
1e-6 in float32. A vector must not depend on its company, so every pass of an encoder has the same number
of rows and a short one is filled up with black pictures.

On a CPU that number is one. A pass of 1,024 tokens fills the cores (it is no slower than one of 4,096),
nothing is ever filled up, and a vector is the same bits by construction in any order and batch. On a CUDA
device a pass holds about 32,768 tokens.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from warnings import warn

import numpy as np
import numpy.typing as npt
import torch

from embedstore.compute_device import check_device_name, device_lost
from embedstore.encoders.base import Encoded, EncoderDefaults, EncoderStream
from embedstore.encoders.lanes import Lane, lane_of
from embedstore.encoders.vision_tower import normalise
from embedstore.errors import UsageError
from embedstore.identity import ArraySpec
from embedstore.images.preprocess import PreprocessSpec

CUDA_PASS_TOKENS = 32_768
CUDA_PASS_ROWS_MAX = 32

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]
Forward = Callable[[torch.Tensor], torch.Tensor]


def default_pass_rows(device: torch.device, tokens: int) -> int:
    """Return the number of pictures in a pass on a device: 1 on a CPU; 32 of 448 px, 8 of 896 px on CUDA."""
    if device.type == "cpu":
        return 1
    return max(1, min(CUDA_PASS_ROWS_MAX, CUDA_PASS_TOKENS // tokens))


class FixedPasses:
    """Runs a tower over any number of pictures, always in passes of one shape.

    Parameters
    ----------
    forward
        (rows, 3, size, size) normalised -> (rows, dim) float32, on the device; after the vector, each row holds
        what `further` names, flat and in that order.
    levels
        `normalised_levels` on the device, in the tower's arithmetic.
    dim
        Length of a vector.
    rows
        Pictures in a pass. A CUDA device that runs out of memory halves it, for this and all later
        passes, and says so: rows computed before and after then differ in their last bits.
    say
        Receives a line for people when memory runs out.
    further
        Array -> what a row of it is, as in the encoder's identity.
    """

    def __init__(
        self,
        forward: Forward,
        levels: torch.Tensor,
        *,
        dim: int,
        rows: int,
        say: Callable[[str], None],
        further: Mapping[str, ArraySpec] | None = None,
    ) -> None:
        self.forward = forward
        self.levels = levels
        self.device = levels.device
        self.dim = dim
        self.rows = rows
        self.say = say
        self.further = dict(further or {})

    @property
    def width(self) -> int:
        """Numbers in a row of a pass: the vector's and those of further arrays."""
        return self.dim + sum(math.prod(spec.row_shape) for spec in self.further.values())

    def split(self, rows: Vectors, busy_s: float) -> Encoded:
        """Return (n, width) rows as vectors and further arrays."""
        vectors, at, further = np.ascontiguousarray(rows[:, : self.dim]), self.dim, {}
        for name, spec in self.further.items():
            end = at + math.prod(spec.row_shape)
            further[name] = rows[:, at:end].reshape(len(rows), *spec.row_shape)
            at = end
        return Encoded(vectors, busy_s, further)

    def queue(self, batch: Pixels, lane: Lane) -> Iterator[QueuedPass]:
        """Yield the passes over a batch, each as soon as it stands in the device's queue.

        Raises
        ------
        DeviceLost
            If a CUDA device stopped answering.
        UsageError
            If the device has not the memory for one picture.
        """
        start = 0
        while start < len(batch):
            piece = batch[start : start + self.rows]
            filled = np.zeros((self.rows, *batch.shape[1:]), np.uint8)
            filled[: len(piece)] = piece
            try:
                with torch.inference_mode():
                    pixels = lane.copied(torch.from_numpy(filled))
                    began = lane.mark()
                    vectors = self.forward(normalise(pixels, self.levels))
                    ended = lane.mark()
                    fetched = lane.fetched(vectors)
            except torch.OutOfMemoryError as error:
                self._halve(error)
                continue
            except RuntimeError as error:
                if self.device.type == "cuda" and "CUDA" in str(error):
                    raise device_lost(self.device, error) from error
                raise
            yield QueuedPass(fetched, len(piece), began, ended)
            start += len(piece)

    def _halve(self, error: Exception) -> None:
        if self.rows == 1:
            raise UsageError(
                f"device {self.device} has not the memory for one picture; free it, use another `device`, "
                "or `dtype='bfloat16'`"
            ) from error
        before, self.rows = self.rows, self.rows // 2
        self.say(
            f"{self.device} ran out of memory with {before} pictures in a pass; going on with {self.rows}. "
            "Vectors from here on may differ in their last bits from those before"
        )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True, eq=False)
class QueuedPass:
    """A pass in the queue of a device.

    Parameters
    ----------
    vectors
        (rows, width) float32 on the host, valid when a mark set after it has passed.
    wanted
        How many of the first rows are pictures; the others filled up the pass.
    began, ended
        The lane's marks around the device's work.
    """

    vectors: torch.Tensor
    wanted: int
    began: Any
    ended: Any


class PassStream:
    """Batches through the passes of a tower: an `embedstore.encoders.base.EncoderStream`.

    While a batch is computed on a CUDA device, the pictures of the next are copied and its passes queued;
    only then are the vectors of the first waited for.

    Parameters
    ----------
    passes
        What computes.
    lane
        The way to its device and back; None for a new one.
    check
        Refuses pictures of another type or shape.
    """

    def __init__(
        self, passes: FixedPasses, *, lane: Lane | None = None, check: Callable[[Pixels], None] | None = None
    ) -> None:
        self.passes = passes
        self.lane = lane or lane_of(passes.device)
        self.check = check
        self._on_the_way: deque[tuple[list[QueuedPass], Any]] = deque()

    def put(self, pixels: Pixels) -> Sequence[Encoded]:
        """Queue a batch and return those that are through: on CUDA the one before, on a CPU this one."""
        if self.check is not None:
            self.check(pixels)
        queued = list(self.passes.queue(pixels, self.lane))
        try:
            self._on_the_way.append((queued, self.lane.mark()))
        except RuntimeError as error:
            raise device_lost(self.passes.device, error) from error
        return self._through(leave=self.lane.ahead)

    def drain(self) -> Sequence[Encoded]:
        """Wait for all that is queued and return it."""
        return self._through(leave=0)

    def _through(self, *, leave: int) -> list[Encoded]:
        found = []
        while len(self._on_the_way) > leave:
            queued, done = self._on_the_way.popleft()
            try:
                self.lane.wait(done)
                busy_s = sum(self.lane.seconds(one.began, one.ended) for one in queued)
            except RuntimeError as error:
                raise device_lost(self.passes.device, error) from error
            pieces = [one.vectors.numpy()[: one.wanted] for one in queued]
            # A copy, so that the next batches may have the page-locked memory.
            rows = np.concatenate([np.empty((0, self.passes.width), np.float32), *pieces])
            found.append(self.passes.split(rows, busy_s))
        return found


class PassEncoder(EncoderDefaults, ABC):
    """What encoders share whose pictures go through `FixedPasses`: batches in, the same bits out in any company.

    Parameters
    ----------
    name
        Name in the identity.
    device
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:<index>``.
    pass_rows
        Pictures in every forward pass; None for the device's default.

    Raises
    ------
    UsageError
        For an option with another value.
    """

    def __init__(self, name: str, *, device: str, pass_rows: int | None) -> None:
        if pass_rows is not None and pass_rows < 1:
            raise UsageError(f"pass_rows must be at least 1; found {pass_rows}")
        self.name = name
        self.pass_rows = pass_rows
        self._device = check_device_name(device)
        self._say: Callable[[str], None] = _warn
        self._passes: FixedPasses | None = None

    @property
    @abstractmethod
    def preprocess(self) -> PreprocessSpec:
        """How a decoded image becomes the pixels that `encode` takes."""

    @abstractmethod
    def make_passes(self) -> FixedPasses:
        """Return what computes, with its weights on the device."""

    @property
    def device(self) -> str:
        """The name that was given, and the device behind it once the weights are loaded."""
        return self._device if self._passes is None else str(self._passes.device)

    def report_to(self, say: Callable[[str], None]) -> None:
        """Have notices said; until then they are Python warnings."""
        self._say = say

    def load(self) -> None:
        """Load weights and move them to the device; may be called more than once. Raises as `make_passes`."""
        self._loaded()

    def encode(self, pixels: Pixels) -> Vectors:
        """Encode one batch.

        Parameters
        ----------
        pixels
            (n, size, size) grey or (n, size, size, 3) RGB, uint8.

        Returns
        -------
        (n, dim) float32, un-normalised. The same picture gives the same bits whatever stands beside it in
        the batch, on one device with one number of rows in a pass.

        Raises
        ------
        UsageError
            For pixels of another type or shape.
        """
        stream = self.open_stream()
        (encoded,) = [*stream.put(pixels), *stream.drain()]
        return encoded.vectors

    def open_stream(self) -> EncoderStream:
        """Return a stream that encodes each batch as `encode` does.

        On a CUDA device a batch is copied and queued while the one before is computed, so that the device
        does not wait for the host.
        """
        return PassStream(self._loaded(), lane=self._lane, check=self._check)

    def _loaded(self) -> FixedPasses:
        if self._passes is None:
            self._passes = self.make_passes()
        return self._passes

    @cached_property
    def _lane(self) -> Lane:
        # One for all streams: each lane of a CUDA device keeps memory for its copies.
        return lane_of(self._loaded().device)

    def _check(self, pixels: Pixels) -> None:
        size = self.preprocess.size_px
        if pixels.dtype != np.uint8 or pixels.shape[1:] not in ((size, size), (size, size, 3)):
            raise UsageError(
                f"encoder {self.name!r} takes uint8 pixels of shape (n, {size}, {size}) or "
                f"(n, {size}, {size}, 3); found {pixels.dtype} of shape {pixels.shape}"
            )

    def _tell(self, line: str) -> None:
        self._say(line)  # looked up each time: somebody may begin to listen after the weights were loaded


def _warn(line: str) -> None:
    # Above: this function, `_tell`, and whoever noticed.
    warn(line, stacklevel=3)
