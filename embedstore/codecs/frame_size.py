"""What a codestream says about its own size, and the refusals that all codecs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from embedstore.errors import ImageRefused, Reason

Samples = npt.NDArray[Any]  # (rows, columns) or (rows, columns, components) of an integer type


@dataclass(frozen=True)
class FrameSize:
    """Rows, columns, components and bits per sample that a codestream claims."""

    rows: int
    columns: int
    components: int
    precision: int

    def require(self, *, rows: int, columns: int, components: int) -> None:
        """Refuse a codestream of another size than the header's, before anything is decoded.

        Raises
        ------
        ImageRefused
            With ``unreadable``, naming both sizes.
        """
        if (self.rows, self.columns, self.components) != (rows, columns, components):
            raise ImageRefused(
                Reason.UNREADABLE,
                f"the header says {rows} x {columns} x {components},"
                f" the compressed frame {self.rows} x {self.columns} x {self.components}",
            )


def no_header(kind: str) -> ImageRefused:
    """Return the refusal of a frame that does not begin like a codestream of its kind."""
    return ImageRefused(Reason.UNREADABLE, f"the compressed frame has no {kind} header")


def truncated(kind: str, what: str) -> ImageRefused:
    """Return the refusal of a codestream that does not hold all of its samples."""
    return ImageRefused(Reason.UNREADABLE, f"the {kind} data are truncated or damaged: {what}")


def unsupported(what: str) -> ImageRefused:
    """Return the refusal of a codestream that is sound as far as is known, and not read here."""
    return ImageRefused(Reason.UNSUPPORTED, what)
