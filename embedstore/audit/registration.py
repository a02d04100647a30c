"""Whether two pictures are copies: their fine structure, laid over each other at small turns and scales.

Two films of one kind share outlines; only a copy shares grain and trabeculae. So pictures are compared in a band of
fine detail (a difference of Gaussians), by the peak of their cross-correlation: 1 for a copy, less for what is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

SIDE_PX = 192
# Standard deviations of the band's Gaussians. This one parted phantoms that were turned by 3 degrees or cut by 5 % (.82
# and more) from the nearest pairs of different patients (.77 at most); coarser ones did not.
_FINE_PX, _COARSE_PX = 0.7, 1.5
_TURNS_DEG = (-4, -3, -2, -1, 1, 2, 3, 4)
_SCALES = (0.94, 0.96, 0.98, 1.02, 1.04, 1.06)
_FLAT = 1e-3
_MIDDLE = np.full(2, (SIDE_PX - 1) / 2)

Spectra = npt.NDArray[np.complex64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Detail:
    """The fine structure of a picture.

    Parameters
    ----------
    pixels
        (`SIDE_PX`, `SIDE_PX`) uint8: the whole picture, squashed.
    aspect
        Columns of the picture for each of its rows: a turn of a high picture is no turn of its square.
    """

    pixels: npt.NDArray[np.uint8]
    aspect: float = 1.0

    @property
    def plain(self) -> Spectra:
        """Its spectrum as it is, (1, rows, columns); not kept, for it is four times as large as the picture."""
        return _spectra(self.pixels.astype(np.float32)[None])

    def moved(self) -> Spectra:
        """Return its spectra at small turns and scales, (moves, rows, columns)."""
        grey = self.pixels.astype(np.float32)
        # What lies outside has the nearest pixel's grey; the window fades it.
        moved = [
            ndimage.affine_transform(grey, matrix, _MIDDLE - matrix @ _MIDDLE, order=1, mode="nearest")
            for matrix in _moves(self.aspect)
        ]
        return _spectra(np.array(moved))


def likeness(one: Detail, other: Detail) -> float:
    """Return the peak of the cross-correlation of two pictures as they are, -1 to 1; small shifts do not matter."""
    return _peak(one.plain, other.plain)


def moved_likeness(one: Detail, other: Detail) -> float:
    """Return the largest `likeness` at turns of up to 4 degrees and scales from 0.94 to 1.06."""
    return _peak(one.moved(), other.plain)


def _spectra(grey: Floats) -> Spectra:
    """Return the spectra of (m, `SIDE_PX`, `SIDE_PX`) pictures in the band, each of length 1; 0 of a flat one."""
    faded = (grey - grey.mean(axis=(1, 2), keepdims=True)) * _window()
    spectra: Spectra = fft.rfft2(faded) * _band()
    # Of a real picture, half of the spectrum holds the other half too, but for the first and the last column.
    twice = np.full(spectra.shape[2], 2.0, np.float32)
    twice[[0, -1]] = 1
    energy = np.einsum("mij,mij,j->m", spectra.real, spectra.real, twice)
    energy += np.einsum("mij,mij,j->m", spectra.imag, spectra.imag, twice)
    lengths = np.sqrt(energy)[:, None, None] / SIDE_PX
    units: Spectra = np.divide(spectra, lengths, out=np.zeros_like(spectra), where=lengths > _FLAT * SIDE_PX)
    return units


def _peak(many: Spectra, one: Spectra) -> float:
    return float(fft.irfft2(many * np.conj(one), s=(SIDE_PX, SIDE_PX)).max())


@cache
def _window() -> Floats:
    """Return what fades towards the edges, where a cut or a turn leaves other pixels."""
    fade = np.sqrt(np.hanning(SIDE_PX)).astype(np.float32)
    return np.outer(fade, fade)


@cache
def _band() -> Floats:
    """Return the transfer function of the difference of two Gaussians."""
    rows, columns = fft.fftfreq(SIDE_PX)[:, None], fft.rfftfreq(SIDE_PX)[None]
    squared = -2 * np.pi**2 * (rows**2 + columns**2)
    band: Floats = (np.exp(squared * _FINE_PX**2) - np.exp(squared * _COARSE_PX**2)).astype(np.float32)
    return band


def _moves(aspect: float) -> Iterator[npt.NDArray[np.float64]]:
    """Yield for each turn and scale the (2, 2) matrix from a pixel of the square to where it comes from."""
    for turn, scale in [*((turn, 1.0) for turn in _TURNS_DEG), *((0.0, scale) for scale in _SCALES)]:
        cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        yield np.array([[cosine, -sine * aspect], [sine / aspect, cosine]]) / scale
