"""What is searched for, among what, and what is shown beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedstore.files import StrPath
from embedstore.indexing.list_index import RECALL
from embedstore.keys.key_file import Key, read_key
from embedstore.queries.clinical_ids import ClinicalIds
from embedstore.store.reader import Store

if TYPE_CHECKING:
    from heads.runs.run import Run

STUDY, IMAGE = "study", "image"


@dataclass(frozen=True, kw_only=True)
class SearchQuery:
    """What is searched for; images, ids and vectors together are one question, as the images of a study are.

    Parameters
    ----------
    images
        Files, one frame of a file (``FILE#N``, from 0), or folders with all that lies below them.
    ids
        Ids of images or studies of the store; with `by`, clinical ones.
    vectors
        Names -> (dim,) vectors of the store's identity, for who has encoded images himself.
    text
        Words, alone; they need a store of a SigLIP checkpoint.
    patients
        Whose images they are, where somebody knows that otherwise: not found, but for `SearchOptions.same_patient`.
    by
        Which clinical id `ids` are, as `embedstore.queries.clinical_ids.ClinicalIds.unit_ids`.
    """

    images: Sequence[StrPath] = ()
    ids: Sequence[str] = ()
    vectors: Sequence[tuple[str, npt.NDArray[np.floating]]] = ()
    text: str | None = None
    patients: Sequence[str] = ()
    by: str | None = None


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Among what is searched.

    Parameters
    ----------
    k
        How many studies (or images) are wanted; there are fewer where fewer may be compared.
    where
        Conditions on columns of the manifest that images must meet, as `embedstore.queries.conditions`.
    group
        ``study``: each study once, by its most similar image; ``image``: every image.
    same_patient
        Whether other images of a patient who is searched for may be found.
    task
        The task whose labels stand beside; all of the store by default.
    probe
        A run whose probabilities stand beside: its folder, or the loaded run.
    """

    k: int = 10
    where: Sequence[str] = ()
    group: str = STUDY
    same_patient: bool = False
    task: str | None = None
    probe: StrPath | Run | None = None


@dataclass(frozen=True, kw_only=True)
class SearchTools:
    """What a search works with.

    Parameters
    ----------
    encoder
        Folder or hub id of the store's encoder, for files and words; its registered name by default.
    device
        Device of the encoder.
    workers
        Decoding processes.
    key_file
        The key that turns clinical ids into the store's own, for `SearchQuery.ids` and `SearchOptions.where`.
    lists, recall
        As `embedstore.queries.search.build_index`.
    """

    encoder: str | None = None
    device: str = "auto"
    workers: int = 1
    key_file: StrPath | None = None
    lists: bool | None = None
    recall: float = RECALL

    @property
    def key(self) -> Key | None:
        """The key, read."""
        return None if self.key_file is None else read_key(self.key_file)

    def ids_of(self, store: Store) -> ClinicalIds:
        """Return what understands clinical ids of a store; raises DataError where the key is another."""
        return ClinicalIds(store, self.key)
