"""Images of a store found again by the digest of their decoded pixels, whatever their files are called."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedstore.store.reader import VALID, Store


@dataclass(frozen=True)
class KnownImages:
    """The digests of a store's images in order of their first eight bytes; `known_images` makes one."""

    image_ids: npt.NDArray[np.object_]
    digests: npt.NDArray[np.uint8]
    heads: npt.NDArray[np.uint64]

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {image_id: place for place, image_id in enumerate(self.image_ids)}

    def knows(self, image_id: str) -> bool:
        """Return whether the store has a vector of that image."""
        return image_id in self._place_of

    def holds(self, image_id: str, digest: npt.NDArray[np.uint8]) -> bool:
        """Return whether an image of the store has these pixels."""
        place = self._place_of.get(image_id)
        return place is not None and np.array_equal(self.digests[place], digest)

    def find(self, digests: npt.NDArray[np.uint8]) -> list[str]:
        """Return the store's id of each image, of several with these pixels the first; ``""`` where it has none.

        Parameters
        ----------
        digests
            (n, 32) uint8.
        """
        found = []
        for digest, head in zip(digests, _heads(digests), strict=True):
            start, stop = (
                np.searchsorted(self.heads, head, "left"),
                np.searchsorted(self.heads, head, "right"),
            )
            same = np.flatnonzero((self.digests[start:stop] == digest).all(axis=1))
            found.append(str(self.image_ids[start + same[0]]) if len(same) else "")
        return found


def known_images(store: Store) -> KnownImages:
    """Read the digests of the images with a vector; raises CorruptStore as `Store.content_sha256`."""
    rows = np.flatnonzero(store.status == VALID)
    digests = store.content_sha256()[rows]
    heads = _heads(digests)
    order = np.argsort(heads, kind="stable")
    return KnownImages(store.image_ids[rows][order], digests[order], heads[order])


def _heads(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64)[:, 0]
