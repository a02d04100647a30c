"""The store in two dimensions: where each image lies, and by what it is coloured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from cli.page.served_store import ServedStore
from embedstore.errors import UsageError
from embedstore.files import sha256_bytes, write_durable
from embedstore.queries.manifest_columns import own_unit_names
from heads.principal_axes import Projection
from heads.runs.run import Run
from heads.scores import Floats

PCA, TSNE = "pca", "tsne"
# Axes are found on so many rows, spread over the store: 190,000 rows of 1,152 numbers take half a second.
_AXES_ROWS = 10_000
# t-SNE is told what 50 axes hold, as its authors do (van der Maaten and Hinton 2008).
_TSNE_AXES = 50
_NOTHING = 255
_MOST_CLASSES = 40


@dataclass(frozen=True, eq=False)
class Colouring:
    """A colour for each point.

    Parameters
    ----------
    name
        What it shows.
    kind
        ``classes``, or ``share`` from 0 to 1.
    classes
        Names of the classes; of a share none.
    codes
        (n,) uint8: place in `classes`, or the share times 254; 255 where nothing is known.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    codes: npt.NDArray[np.uint8]


def principal_positions(served: ServedStore) -> npt.NDArray[np.float32]:
    """Return (n, 2) float32 in -1 to 1: the points on the two axes of largest variance of their unit vectors."""
    return _fitted(_projected(served, 2))


def tsne_file(served: ServedStore) -> Path:
    """Return where t-SNE's positions of a store are kept: beside it, by the digest of what they are of."""
    digest = sha256_bytes(
        served.store.identity.sha256.encode() + np.ascontiguousarray(served.store.content_sha256()).tobytes()
    )
    path = served.store.path
    return path.parent / f"{path.name}.cache" / f"map-tsne-{digest[:24]}.safetensors"


def cached_tsne(served: ServedStore) -> npt.NDArray[np.float32] | None:
    """Return t-SNE's positions, (n, 2) float32 in -1 to 1, where they were computed of the store as it is now."""
    try:
        found = load_arrays(tsne_file(served).read_bytes()).get("positions")
    except (OSError, SafetensorError):
        return None
    if found is None or found.shape != (len(served.rows), 2) or found.dtype != np.float32:
        return None
    return found if bool(np.isfinite(found).all()) else None


def compute_tsne(served: ServedStore, *, seed: int = 0) -> Path:
    """Compute t-SNE's positions with scikit-learn and keep them; returns where.

    Raises
    ------
    UsageError
        If the store has too few images.
    """
    from sklearn import manifold

    count = len(served.rows)
    if count < 4:
        raise UsageError(f"t-SNE needs 4 images or more; the store has {count}")
    perplexity = min(30.0, (count - 1) / 3)
    drawn = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        _projected(served, _TSNE_AXES)
    )
    path = tsne_file(served)
    path.parent.mkdir(exist_ok=True)
    write_durable(path, save_arrays({"positions": _fitted(np.asarray(drawn, np.float32))}), label="map")
    return path


def colourings(served: ServedStore, run: Run | None) -> list[Colouring]:
    """Return what points can be coloured by: labels, few-valued columns, and of a run probability and error."""
    rows = served.rows
    found = [
        Colouring(
            label.target if label.task == label.target else f"{label.task}: {label.target}",
            "classes",
            label.classes,
            np.where(label.codes[rows] < 0, _NOTHING, label.codes[rows]).astype(np.uint8),
        )
        for label in served.labels
    ]
    for name, values in served.choices.items():
        place = {value: code for code, value in enumerate(values[:_MOST_CLASSES])}
        codes = [place.get(cell, _NOTHING) for cell in served.text(name)[rows].tolist()]
        found.append(Colouring(name, "classes", tuple(values), np.array(codes, np.uint8)))
    # What tells points apart comes first.
    found.sort(key=lambda one: len(np.unique(one.codes[one.codes != _NOTHING])) < 2)
    return found + ([] if run is None else _of_run(served, run))


def _of_run(served: ServedStore, run: Run) -> list[Colouring]:
    """Return probability and error of each target, of the units of a run, by their out-of-fold or held-out answers."""
    task = served.tasks.get(run.document["task"]["name"])
    if task is None:
        return []
    units = own_unit_names(served.store.table, task.unit)[served.rows]
    found = []
    parts = [run.out_of_fold, run.evaluated]
    place = {name: row for row, name in enumerate(name for part in parts for name in part.unit_ids.tolist())}
    of_point = np.array([place.get(name, -1) for name in units.tolist()], np.int64)
    positive = run.classes.index(run.positive) if run.positive in run.classes else len(run.classes) - 1
    for number, target in enumerate(run.targets):
        probabilities = np.concatenate([part.probabilities[:, number] for part in parts])
        y = np.concatenate([part.y[:, number] for part in parts])
        missing = np.concatenate([probabilities[:, positive], [np.nan]])
        found.append(
            Colouring(
                f"probability of {run.classes[positive]}: {target}", "share", (), _shares(missing[of_point])
            )
        )
        truth = np.where(
            y >= 0, np.take_along_axis(probabilities, np.maximum(y, 0)[:, None], 1)[:, 0], np.nan
        )
        error = np.concatenate([1 - truth, [np.nan]])
        found.append(Colouring(f"error: {target}", "share", (), _shares(error[of_point])))
    return found


def _shares(values: Floats) -> npt.NDArray[np.uint8]:
    known = np.isfinite(values)
    return np.where(known, np.rint(np.where(known, values, 0) * 254), _NOTHING).astype(np.uint8)


def _projected(served: ServedStore, axes: int) -> npt.NDArray[np.float32]:
    vectors = served.index.vectors
    every = max(1, len(vectors) // _AXES_ROWS)
    fitted = Projection.fit(_unit_length(vectors[::every]), axes)
    pieces = [
        _unit_length(vectors[start : start + _AXES_ROWS]) @ fitted.axes.T.astype(np.float32)
        for start in range(0, len(vectors), _AXES_ROWS)
    ]
    return np.concatenate([np.zeros((0, len(fitted.axes)), np.float32), *pieces])


def _unit_length(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    wide = vectors.astype(np.float32)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)


def _fitted(positions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return positions moved and scaled by one factor, so that the wider axis spans -1 to 1; (n, 2) always."""
    flat = np.zeros((len(positions), 2), np.float32)
    flat[:, : positions.shape[1]] = positions[:, :2]
    if not len(flat):
        return flat
    low, high = flat.min(0), flat.max(0)
    half = max(float((high - low).max()) / 2, np.finfo(np.float32).tiny)
    return np.asarray((flat - (low + high) / 2) / half, np.float32)


def named(found: Sequence[Colouring]) -> list[dict[str, Any]]:
    """Return colourings without their codes, as plain JSON values."""
    return [{"name": one.name, "kind": one.kind, "classes": list(one.classes)} for one in found]
