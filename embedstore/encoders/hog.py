"""Histograms of oriented gradients: an encoder without weights, the floor that a model must beat.

The picture is divided into 12 x 12 cells of 37 px; each cell holds 8 unsigned orientations, weighted by
gradient magnitude (Dalal and Triggs, CVPR 2005). Gradients of uint8 pixels are integers, so orientation
and magnitude come from a table with one entry per possible gradient, and magnitudes are fixed-point
numbers whose sums are exact. That is why the order of summation, the batch, the number of threads and
the device cannot change a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from embedstore.encoders.base import Encoded, EncoderDefaults, EncoderStream
from embedstore.errors import UsageError
from embedstore.identity import Identity
from embedstore.images.preprocess import PreprocessSpec
from embedstore.tokens.grid import TOKENS, TokenGrid

CELLS = 12
ORIENTATIONS = 8
CELL_PX = 37
SIZE_PX = CELLS * CELL_PX
DIM = CELLS * CELLS * ORIENTATIONS
BLOCK_CELLS = 2
CLIP = 0.2  # Dalal and Triggs 2005, section 6.4: "L2-Hys"
EPSILON = 1e-5  # as scikit-image's `hog`, in grey levels

# ITU-R 601 luma in 16 fractional bits, as PIL's convert("L"); the sum is 65,536, so grey stays itself.
_LUMA_RGB = (19595, 38470, 7471)
_LUMA_HALF = 0x8000
_GRADIENT_MAX = 255
_GRADIENT_LEVELS = 2 * _GRADIENT_MAX + 1
_CODE_OF_ZERO = _GRADIENT_MAX * _GRADIENT_LEVELS + _GRADIENT_MAX
# A cell sums 1,369 magnitudes below 361: with 30 fractional bits the sum stays below 2**49, exact in float64.
_FRACTION = float(2**30)
_CHUNK = 64  # pictures at a time: 13 MB of grey levels, 150 MB of work on a CUDA device


class HogEncoder(EncoderDefaults):
    """Histogram of oriented gradients: 12 x 12 cells x 8 orientations = 1,152 numbers in 0 ... 1.

    Each cell is normalised by L2-Hys within every 2 x 2 block that holds it, and the results (1, 2 or 4)
    are averaged: the vector keeps one place per cell and orientation, and still says how a cell's edges
    compare with its neighbours'.

    Parameters
    ----------
    preset
        Preprocess preset (``pad``, ``eval``, ``hf``), or None for ``pad``.
    device
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:<index>``.
    dtype
        ``auto`` or ``float32``.
    square_pixels
        Pixels that are not square are shown as high and wide as they are (`PreprocessSpec`).
    tokens
        Offer the cells as tokens beside the vector, with so many numbers of the 8 orientations each (`TokenGrid`);
        None for no tokens.

    Raises
    ------
    UsageError
        For another preset, device or dtype, or tokens of less than one number.

    Examples
    --------
    >>> import numpy as np
    >>> encoder = HogEncoder(device="cpu")
    >>> encoder.encode(np.zeros((2, 444, 444), np.uint8)).shape
    (2, 1152)
    """

    name = "hog"

    def __init__(
        self,
        preset: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        *,
        square_pixels: bool = True,
        tokens: int | None = None,
    ) -> None:
        if dtype not in ("auto", "float32"):
            raise UsageError(f"dtype of encoder 'hog' must be 'auto' or 'float32'; found {dtype!r}")
        if device not in ("auto", "cpu") and device.partition(":")[0] != "cuda":
            raise UsageError(f"device of encoder 'hog' must be 'auto', 'cpu' or 'cuda'; found {device!r}")
        self.preprocess = PreprocessSpec(preset or "pad", size_px=SIZE_PX, square_pixels=square_pixels)
        self._device = device
        self.dtype = dtype
        self.grid = (
            None
            if tokens is None
            else TokenGrid(CELLS, CELLS, width=ORIENTATIONS, wanted=tokens, what="orientations of a cell")
        )
        self._tables: _Tables | None = None

    @property
    def device(self) -> str:
        """The name that was given, and the device behind it once the tables lie there."""
        return self._device if self._tables is None else str(self._tables.device)

    @property
    def identity(self) -> Identity:
        """The identity of the vectors that `encode` returns."""
        return Identity(
            encoder=self.name,
            revision="1",
            weights_sha256="none",
            preprocess=self.preprocess.to_json(),
            pooling="cells",
            compute_dtype="float32",
            dim=DIM,
            arrays={} if self.grid is None else {TOKENS: self.grid.spec},
        )

    def load(self) -> None:
        """Put the gradient tables on the device.

        Raises
        ------
        UsageError
            If a CUDA device is asked for and torch sees none.
        """
        if self._tables is None:
            self._tables = _Tables(_resolve_device(self._device))

    def encode(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode one batch.

        Parameters
        ----------
        pixels
            (n, 444, 444) grey or (n, 444, 444, 3) RGB, uint8. RGB becomes luma as PIL's mode ``L``.

        Returns
        -------
        (n, 1152) float32, each at least 0 and at most 1, in the order cell row, cell column, orientation.
        Orientation k holds gradient directions from 22.5 k to 22.5 (k + 1) degrees, modulo 180.

        Raises
        ------
        UsageError
            For pixels of another type or shape.
        """
        _check_pixels(pixels)
        self.load()
        tables = self._tables
        assert tables is not None  # for the type checker: load() has just set it
        vectors = np.empty((len(pixels), DIM), np.float32)
        for start in range(0, len(pixels), _CHUNK):
            piece = pixels[start : start + _CHUNK]
            with torch.inference_mode():
                if tables.device.type == "cuda":
                    histograms = _cell_histograms(piece, tables, CELLS)
                else:
                    histograms = _histograms_by_threads(piece, tables)
                vectors[start : start + _CHUNK] = _normalise(histograms).flatten(1).cpu().numpy()
        return vectors

    def open_stream(self) -> EncoderStream:
        """Return a stream that encodes each batch while it is put; the tokens are the vector's own cells."""
        stream = super().open_stream()
        return stream if self.grid is None else _WithCells(stream, self.grid)


class _WithCells:
    """A stream of `hog` that gives the cells of each vector as tokens."""

    def __init__(self, stream: EncoderStream, grid: TokenGrid) -> None:
        self._stream = stream
        self._grid = grid

    def put(self, pixels: npt.NDArray[np.uint8]) -> Sequence[Encoded]:
        """Encode a batch and return it with its tokens."""
        return [self._completed(encoded) for encoded in self._stream.put(pixels)]

    def drain(self) -> Sequence[Encoded]:
        """Return nothing: every batch was finished when it was put."""
        return [self._completed(encoded) for encoded in self._stream.drain()]

    def _completed(self, encoded: Encoded) -> Encoded:
        cells = encoded.vectors.reshape(-1, CELLS, CELLS, ORIENTATIONS)
        matrix = self._grid.projection
        if matrix is None:
            return replace(encoded, further={TOKENS: cells})
        # One orientation after the other: a matrix product may round otherwise in another batch or elsewhere.
        tokens = np.zeros((len(cells), *self._grid.shape), np.float32)
        for orientation in range(ORIENTATIONS):
            tokens += cells[..., orientation, None] * matrix[orientation]
        return replace(encoded, further={TOKENS: tokens})


class _Tables:
    """What every picture needs on the device: the gradient tables and each pixel's cell."""

    def __init__(self, device: torch.device) -> None:
        orientation, magnitude = _gradient_tables()
        cell = np.arange(SIZE_PX) // CELL_PX
        first_bin = (cell[:, None] * CELLS + cell[None, :]) * ORIENTATIONS
        self.device = device
        self.orientation = torch.from_numpy(orientation).to(device)
        self.magnitude = torch.from_numpy(magnitude).to(device)
        self.first_bin = torch.from_numpy(first_bin.astype(np.int32)).to(device)


@lru_cache(maxsize=1)
def _gradient_tables() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Orientation and fixed-point magnitude of every gradient, at ``(row + 255) * 511 + column + 255``."""
    steps = np.arange(-_GRADIENT_MAX, _GRADIENT_MAX + 1, dtype=np.float64)
    rows, columns = steps[:, None], steps[None, :]
    # No gradient of integers lies on a bin edge except at 0, 45, 90 and 135 degrees (the tangent of every
    # other edge is irrational), and there arctan2 in degrees is exact.
    degrees = np.rad2deg(np.arctan2(rows, columns)) % 180.0
    orientation = np.minimum(degrees // (180.0 / ORIENTATIONS), ORIENTATIONS - 1).astype(np.int32)
    magnitude = np.rint(np.sqrt(rows**2 + columns**2) * _FRACTION)
    return orientation.ravel(), magnitude.ravel()


def _histograms_by_threads(pixels: npt.NDArray[np.uint8], tables: _Tables) -> torch.Tensor:
    """Give each thread whole pictures, and each picture one row of cells at a time.

    A row of cells (16,428 px) stays in the second-level cache, and below the 32,768 elements from which
    torch splits an operation among threads, which then wait for each other whenever other processes want
    the cores.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        pieces = [pixels[row : row + 1] for row in range(len(pixels))]
        return torch.cat(list(pool.map(lambda piece: _cell_histograms(piece, tables, 1), pieces)))


def _cell_histograms(pixels: npt.NDArray[np.uint8], tables: _Tables, band_cells: int) -> torch.Tensor:
    """(n, 444, 444[, 3]) uint8 -> (n, 12, 12, 8) float64 mean magnitude per pixel, in grey levels."""
    # A copy costs 1 %, and torch takes neither read-only nor reversed arrays.
    owned = np.array(pixels, order="C")
    with torch.inference_mode():
        grey = _luma(torch.from_numpy(owned).to(tables.device))
        # A mirrored row at either end makes the gradient of the border rows zero, as in scikit-image.
        padded = torch.cat([grey[:, 1:2], grey, grey[:, -2:-1]], dim=1)
        band_px = band_cells * CELL_PX
        tops = range(0, SIZE_PX, band_px)
        bands = [_band_histograms(padded[:, top : top + band_px + 2], tables) for top in tops]
        return torch.cat(bands, dim=1)


def _luma(pixels: torch.Tensor) -> torch.Tensor:
    """(n, h, w) or (n, h, w, 3) uint8 -> (n, h, w) uint8 grey levels."""
    if pixels.ndim == 3:
        return pixels
    red, green, blue = (channel.to(torch.int32) for channel in pixels.unbind(-1))
    weighted = red * _LUMA_RGB[0] + green * _LUMA_RGB[1] + blue * _LUMA_RGB[2]
    return ((weighted + _LUMA_HALF) >> 16).to(torch.uint8)


def _band_histograms(padded: torch.Tensor, tables: _Tables) -> torch.Tensor:
    """(n, 37 k + 2, 444) uint8, one row above and below included -> (n, k, 12, 8) float64."""
    levels = padded.to(torch.int32)
    centre = levels[:, 1:-1]
    count, height, _ = centre.shape
    code = (levels[:, 2:] - levels[:, :-2]).mul_(_GRADIENT_LEVELS).add_(_CODE_OF_ZERO)
    code[:, :, 1:-1] += centre[:, :, 2:] - centre[:, :, :-2]
    code = code.view(-1)
    place = tables.orientation.index_select(0, code).view(centre.shape) + tables.first_bin[:height]
    bins = height // CELL_PX * CELLS * ORIENTATIONS
    if count > 1:
        place += torch.arange(count, device=place.device, dtype=torch.int32).view(-1, 1, 1) * bins
    weights = tables.magnitude.index_select(0, code)
    sums = torch.bincount(place.view(-1), weights=weights, minlength=count * bins)
    return sums.view(count, -1, CELLS, ORIENTATIONS) / (_FRACTION * CELL_PX**2)


def _normalise(histograms: torch.Tensor) -> torch.Tensor:
    """(n, 12, 12, 8) float64 -> (n, 12, 12, 8) float32: the mean of each cell's block-normalised values."""
    blocks = CELLS - BLOCK_CELLS + 1
    offsets = [(row, column) for row in range(BLOCK_CELLS) for column in range(BLOCK_CELLS)]
    members = [histograms[:, row : row + blocks, column : column + blocks] for row, column in offsets]
    clipped = [(member / _block_norm(members)).clamp(max=CLIP) for member in members]
    norm = _block_norm(clipped)
    total = torch.zeros_like(histograms)
    times = torch.zeros_like(histograms[:1])
    for (row, column), member in zip(offsets, clipped, strict=True):
        total[:, row : row + blocks, column : column + blocks] += member / norm
        times[:, row : row + blocks, column : column + blocks] += 1
    return (total / times).to(torch.float32)


def _block_norm(members: list[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm over a block's cells and orientations: (n, 11, 11, 1).

    Added up one by one: a library's reduction may choose its order by shape and number of threads.
    """
    energy = torch.full_like(members[0][..., 0], EPSILON**2)
    for member in members:
        for orientation in member.unbind(-1):
            energy = energy + orientation * orientation
    return energy.sqrt().unsqueeze(-1)


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<index>'; found {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices. Use 'cpu'."
        )
    return device


def _check_pixels(pixels: npt.NDArray[np.uint8]) -> None:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or shape[1:] not in ((SIZE_PX, SIZE_PX), (SIZE_PX, SIZE_PX, 3)):
        raise UsageError(
            f"encoder 'hog' takes uint8 pixels of shape (n, {SIZE_PX}, {SIZE_PX}) or "
            f"(n, {SIZE_PX}, {SIZE_PX}, 3); found {pixels.dtype} of shape {shape}"
        )
