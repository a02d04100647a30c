"""The most similar images of a store: to a vector, to one of its own images, or to a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore.encoders.registry import encoder_of_identity
from embedstore.errors import DataError
from embedstore.files import StrPath
from embedstore.headers.file_frames import other_frames, split_frame
from embedstore.manifest import Record
from embedstore.pipeline.embed_images import embed_records
from embedstore.queries.conditions import Where
from embedstore.queries.search import Neighbor, build_index
from embedstore.store.reader import Store, as_store

Query = StrPath | npt.NDArray[np.floating] | Sequence[float]


def search(
    store: Store | StrPath,
    query: Query,
    k: int = 10,
    *,
    where: Where = (),
    exclude_patient: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    say: Callable[[str], None] | None = None,
) -> list[Neighbor]:
    """Return the `k` images of a store most similar to `query`, most similar first.

    Whoever asks several times builds an index once and searches that (`build_index`).

    Parameters
    ----------
    store
        The store, opened or by its folder.
    query
        (dim,) vector of the store's identity, the id of one of the store's images, which is left out itself, or
        an image file or one of its frames (``FILE#N``, from 0). A string is an id where the store has it, else a
        file.
    k
        How many; fewer come back when fewer are searchable.
    where
        What images must be: conditions on columns of the manifest (``["age>=65"]``), or column -> value.
    exclude_patient
        Leave this patient's images out.
    encoder
        Folder or hub id of the store's encoder, for a file; its registered name by default.
    device
        Device of the encoder.
    say
        Takes the encoder's notices for people; without it they are Python warnings.

    Raises
    ------
    DataError
        If the image has no vector, the file cannot be decoded, or the vector has another length.
    UsageError
        If the store has no such column, or its encoder cannot be built.

    Examples
    --------
    >>> image_id = store.image_ids[0]
    >>> nearest = es.search(store, image_id, k=3)
    >>> [neighbor.cosine > 0.5 for neighbor in nearest]
    [True, True, True]
    >>> es.search(store, f"MURA-v1.1/{image_id}", k=1)[0].image_id == image_id
    True
    >>> wrists = es.search("mura.store", store.embeddings().vectors[0], where={"anatomy": "XR_WRIST"})
    >>> {neighbor.record["anatomy"] for neighbor in wrists}
    {'XR_WRIST'}
    """
    store = as_store(store)
    image_id = query if isinstance(query, str) and query in store.row_of else ""
    if image_id:
        vector = store.vector(image_id)
    elif isinstance(query, str | os.PathLike):
        if not split_frame(Path(query))[0].is_file():
            raise DataError(
                f"query {os.fspath(query)!r} is neither an image of store {store.path} nor a file"
            )
        vector = vector_of_file(store, query, encoder=encoder, device=device, say=say)
    else:
        vector = np.asarray(query, np.float32)
        if vector.shape != (store.identity.dim,):
            raise DataError(
                f"query must be a vector of shape ({store.identity.dim},), an image id or a file; found an array of "
                f"shape {vector.shape}"
            )
    index = build_index(store, where=where)
    return index.search(vector, k=k, exclude_patient=exclude_patient, exclude_id=image_id)


def vector_of_file(
    store: Store,
    image: StrPath,
    *,
    encoder: str | None = None,
    device: str = "auto",
    say: Callable[[str], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Return the vector of a file, (dim,), by the encoder of a store; arguments and errors as `search`."""
    built = encoder_of_identity(
        store.identity, holder=f"store {store.path}", name=encoder, device=device, say=say
    )
    image = Path(image)
    file, frame = split_frame(image)
    if file == image and (others := other_frames(file)):
        notice = (
            f"{image} has {1 + len(others)} frames; the first is taken, {image}#{others[0]} names the next"
        )
        say(notice) if say else warnings.warn(notice, stacklevel=2)
    embedded = embed_records([Record(image.name, file.name, frame)], file.absolute().parent, built)
    if say is not None:
        for line in embedded.lines_of_notes():
            say(line)
    for reason, message in embedded.failures.values():
        raise DataError(f"{image}: {reason}: {message}")
    vector: npt.NDArray[np.float32] = embedded.vectors[0]
    return vector
