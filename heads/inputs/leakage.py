"""Leakage: patients, and images with identical pixels, on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedstore.errors import DataError, and_more
from embedstore.view import View

_SHOWN = 3


def require_disjoint_splits(view: View, fitted: npt.NDArray[np.bool_], scored: npt.NDArray[np.bool_]) -> None:
    """Refuse a split that shares patients or pixels.

    Parameters
    ----------
    view
        The units.
    fitted, scored
        (n_units,) bool: training and evaluation units.

    Raises
    ------
    DataError
        With the first shared patients or pairs of images, and how many there are.
    """
    shared = np.intersect1d(view.patients[fitted], view.patients[scored])
    if len(shared):
        raise DataError(
            f"task {view.task.name!r}: {len(shared)} patients are in the training and the evaluation split "
            f"({_listed([str(patient) for patient in shared])}): results would be too good. Mend the splits"
        )
    digests = _digests(view)
    fit_images = np.flatnonzero(fitted[view.unit_of_image])
    score_images = np.flatnonzero(scored[view.unit_of_image])
    _, at_fit, at_score = np.intersect1d(digests[fit_images], digests[score_images], return_indices=True)
    if len(at_fit):
        pairs = [
            f"{view.image_ids[fit_images[i]]} = {view.image_ids[score_images[j]]}"
            for i, j in zip(at_fit[:_SHOWN], at_score[:_SHOWN], strict=True)
        ]
        raise DataError(
            f"task {view.task.name!r}: {len(at_fit)} images have identical pixels in the training and in the "
            f"evaluation split ({_listed(pairs, len(at_fit))}). Remove one of each pair"
        )


def leakage_groups(view: View) -> npt.NDArray[np.int64]:
    """Return the group of each unit that folds must keep together, (n_units,) int64 from 0.

    Units of one patient, and of patients who share an image with identical pixels, are one group.
    """
    _, patient = np.unique(view.patients, return_inverse=True)
    _, content = np.unique(_digests(view), return_inverse=True)
    n_patients, n_contents = int(patient.max()) + 1, int(content.max()) + 1
    rows, columns = patient[view.unit_of_image], n_patients + content
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(n_patients + n_contents,) * 2)
    _, component = connected_components(graph, directed=False)
    _, group = np.unique(component[:n_patients], return_inverse=True)
    return np.asarray(group[patient], np.int64)


def _digests(view: View) -> npt.NDArray[np.void]:
    content = np.ascontiguousarray(view.content_sha256)
    return content.view(np.dtype((np.void, content.shape[1]))).ravel()


def _listed(names: Sequence[str], count: int | None = None) -> str:
    total = len(names) if count is None else count
    return ", ".join(names[:_SHOWN]) + and_more(total - _SHOWN)
