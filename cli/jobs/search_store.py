"""The most similar images of a store: to a file, to one of its own images, or to words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cli.jobs.text_tower import text_tower_of
from cli.notify import Notify, ignore
from embedstore.files import StrPath
from embedstore.keys.key_file import read_key
from embedstore.queries.clinical_ids import ClinicalIds
from embedstore.queries.conditions import none_left, parse_conditions
from embedstore.queries.search import Neighbor, build_index
from embedstore.queries.similar_images import vector_of_file
from embedstore.store.reader import Store, open_store

_NAMED_COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What is searched, and how.

    Parameters
    ----------
    k
        How many images are wanted; there are fewer where fewer may be compared.
    where
        Conditions on columns of the manifest that images must meet, as `embedstore.queries.conditions`.
    encoder
        Folder or hub id of the store's encoder, for files and words; its registered name by default.
    device
        Device of the encoder.
    by, key_file
        Which clinical id an image is named by, and the key that turns it into the store's own; also for `where`.
    """

    k: int = 10
    where: Sequence[str] = ()
    encoder: str | None = None
    device: str = "auto"
    by: str | None = None
    key_file: StrPath | None = None

    def ids_of(self, store: Store) -> ClinicalIds:
        """Return what understands clinical ids of a store; raises DataError where the key is another."""
        return ClinicalIds(store, None if self.key_file is None else read_key(self.key_file))


@dataclass(frozen=True, kw_only=True)
class SimilarImages:
    """What was found.

    Parameters
    ----------
    neighbors
        Images by falling cosine similarity.
    columns
        The first few columns of the store beside those that every manifest has.
    why_none
        Which condition leaves no image to compare with, and what its column holds; ``""`` where some are left.
    query
        The store's id of the image that was searched for, where it is one of the store's.
    """

    neighbors: Sequence[Neighbor]
    columns: Sequence[str]
    why_none: str = ""
    query: str = ""


def search_by_file(
    store: StrPath, image: StrPath, options: SearchOptions | None = None, *, notify: Notify = ignore
) -> SimilarImages:
    """Find the images most similar to a file, or to one of its frames (``FILE#N``, from 0).

    Raises
    ------
    DataError
        If the file cannot be decoded.
    UsageError
        If the store has no such column, or its encoder cannot be built.
    """
    asked, opened = options or SearchOptions(), open_store(Path(store))
    vector = vector_of_file(opened, image, encoder=asked.encoder, device=asked.device, say=notify)
    return _similar(opened, vector, asked)


def search_by_words(
    store: StrPath, words: str, options: SearchOptions | None = None, *, notify: Notify = ignore
) -> SimilarImages:
    """Find the images most similar to words.

    Raises
    ------
    UsageError
        If the store has no such column, or its encoder no text tower.
    """
    asked, opened = options or SearchOptions(), open_store(Path(store))
    tower = text_tower_of(opened, encoder=asked.encoder, device=asked.device, notify=notify)
    return _similar(opened, tower.encode([words])[0], asked)


def search_by_id(
    store: StrPath, image_id: str, options: SearchOptions | None = None, *, same_patient: bool = False
) -> SimilarImages:
    """Find the images most similar to one of the store, itself left out.

    Parameters
    ----------
    store, image_id
        The store and its image.
    options
        What is searched; the defaults where None.
    same_patient
        Whether images of the same patient may be found too.

    Raises
    ------
    DataError
        If the store has no vector of such an image.
    UsageError
        If the store has no such column.
    """
    asked, opened = options or SearchOptions(), open_store(Path(store))
    image_id = asked.ids_of(opened).image_id(image_id, asked.by)
    vector = opened.vector(image_id)
    patient = None if same_patient else _patient(opened, image_id)
    return _similar(opened, vector, asked, exclude_patient=patient, exclude_id=image_id)


def _similar(
    store: Store,
    vector: npt.NDArray[np.floating],
    asked: SearchOptions,
    *,
    exclude_patient: str | None = None,
    exclude_id: str = "",
) -> SimilarImages:
    conditions = asked.ids_of(store).where(parse_conditions(asked.where))
    index = build_index(store, where=conditions)
    neighbors = index.search(vector, k=asked.k, exclude_patient=exclude_patient, exclude_id=exclude_id)
    columns = [column for part in store.parts for column in part.manifest.extra_columns]
    why_none = "" if len(index.rows) else none_left(store.table, conditions)
    named = list(dict.fromkeys(columns[:_NAMED_COLUMNS]))
    return SimilarImages(neighbors=neighbors, columns=named, why_none=why_none, query=exclude_id)


def _patient(store: Store, image_id: str) -> str | None:
    patient: str | None = store.table.column("patient_id")[store.row_of[image_id]].as_py()
    return patient
