"""Inputs of a head: how the images of a unit are pooled, and the metadata columns appended to the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.task import POOLINGS
from embedstore.view import PLACE, View
from heads.inputs.binned import Bins
from heads.inputs.metadata import Cells, MetadataBlocks, require_metadata_columns
from heads.inputs.pooling import BINNED, pool_vectors


@dataclass(frozen=True)
class HeadInputs:
    """Pooling and metadata columns: the input of a head.

    Parameters
    ----------
    pooling
        As `heads.inputs.pooling`.
    metadata
        Manifest columns appended to the vectors; the places of binned pooling are not among them.
    """

    pooling: str
    metadata: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the head needs of an image."""
        return (*self.metadata, *((PLACE,) if self.pooling == BINNED else ()))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"pooling": self.pooling, "metadata": list(self.metadata)}


@dataclass(frozen=True)
class Trial:
    """Inputs that were tried, with their loss.

    Parameters
    ----------
    inputs
        Pooling and metadata.
    log_loss
        Mean over targets of the out-of-fold log loss at the unit, of the grid point selected for it.
    """

    inputs: HeadInputs
    log_loss: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.inputs.to_json(), "log_loss": self.log_loss}


def named_inputs(
    view: View, pooling: str | None, inputs: Sequence[HeadInputs] | None = None
) -> tuple[HeadInputs, ...]:
    """Return the requested choices of inputs: `inputs`, or `pooling` (the task's by default) with all metadata.

    Raises
    ------
    UsageError
        If both are given, the view lacks a column, or a head must not see one.
    """
    require_metadata_columns(tuple(view.metadata), view.task)
    if inputs is None:
        inputs, pooling = (_with_all(view, pooling or view.task.pooling),), None
    if pooling is not None:
        raise UsageError(
            f"the pooling is to be chosen among the inputs, so pooling={pooling!r} has no meaning"
        )
    lacking = {column for choice in inputs for column in choice.columns} - set(view.metadata)
    if lacking or not inputs:
        raise UsageError(
            f"inputs need one choice or more, with metadata of the view ({', '.join(view.metadata) or 'none'}); "
            f"found {len(inputs)} choices, unknown: {sorted(lacking)}"
        )
    return tuple(inputs)


def all_inputs(view: View) -> tuple[HeadInputs, ...]:
    """Return every choice of inputs, the plainest first: poolings, each without and with the view's metadata.

    Poolings differ only where some unit has more than one image, and bins are tried where the view knows places.
    """
    several = len(view.image_ids) > len(view.unit_ids)
    first = view.task.pooling
    poolings = (first, *(name for name in POOLINGS if name != first)) if several else (first,)
    if several and PLACE in view.metadata:
        poolings = (*poolings, BINNED)
    plain = [HeadInputs(pooling) for pooling in poolings]
    told = [_with_all(view, pooling) for pooling in poolings] if view.metadata else []
    return tuple(dict.fromkeys([*plain, *told]))


def _with_all(view: View, pooling: str) -> HeadInputs:
    """Return a pooling with all metadata of the view; bins have the places already."""
    return HeadInputs(
        pooling, tuple(column for column in view.metadata if pooling != BINNED or column != PLACE)
    )


def head_rows(
    X: npt.NDArray[np.float32],
    metadata: Cells | None,
    unit_of_image: npt.NDArray[np.int64],
    *,
    n_units: int,
    pooling: str,
    blocks: MetadataBlocks | None,
    bins: Bins | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the rows that a head sees and the unit of each, in training as in prediction.

    Metadata joins the images before they are pooled: a study's mean vector then holds the share of its images
    at each level, and its maximum whether there is one.

    Parameters
    ----------
    X, unit_of_image, n_units, pooling
        As `heads.inputs.pooling.pool_vectors`.
    metadata
        Column -> (n_images,) str, where `blocks` or `bins` wants it.
    blocks
        How metadata becomes numbers; None without.
    bins
        The places of binned pooling, behind which stand the shares of the metadata; None for other poolings.
    """
    if bins is not None:
        pooled = bins.pool(X, metadata, unit_of_image, n_units=n_units)
        if blocks is not None:
            columns = blocks.append(X[:, :0], metadata)
            shares, _ = pool_vectors(columns, unit_of_image, n_units=n_units, pooling="mean-vector")
            pooled = np.concatenate([pooled, shares], axis=1)
        return pooled, np.arange(n_units)
    wide = X if blocks is None else blocks.append(X, metadata)
    return pool_vectors(wide, unit_of_image, n_units=n_units, pooling=pooling)
