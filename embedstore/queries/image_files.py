"""Where the images of a store lie: by the paths in its manifest, or by the owner's map where these are hidden."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from embedstore.errors import DataError
from embedstore.keys.key_file import Key
from embedstore.keys.owner_map import read_map
from embedstore.manifest import image_of_crop, path_from_manifest
from embedstore.store.reader import Part, Store


class ImageFiles:
    """Finds the files of stored images.

    Parameters
    ----------
    key
        The key of the parts whose paths are hidden; without it their images are nowhere.
    """

    def __init__(self, key: Key | None = None) -> None:
        self._key = key
        self._places: dict[str, list[tuple[str, str]]] | None = None

    def of_part(self, store: Store, part: Part) -> Iterator[tuple[str, Path, str]]:
        """Yield image id, folder and path below it of each image of a part whose place is known.

        Raises
        ------
        DataError
            If the key is another than the part's.
        """
        table = part.manifest.table
        image_ids = table.column("image_id").to_pylist()
        if not part.plan.hides_paths:
            root = root_of(store, part)
            for image_id, path in zip(image_ids, table.column("path").to_pylist(), strict=True):
                yield image_id, root, path
            return
        if self._key is None:
            return
        require_key_of([store], self._key)
        for image_id in image_ids:
            places = self._known(self._key).get(image_of_crop(image_id), [])
            if len(places) > 1:
                # One archive may have been seen under two names; that of the part itself comes first.
                places = sorted(places, key=lambda place: not self._is_root(part, place[0]))
            for root_name, path in places:
                root = path_from_manifest(Path("/"), root_name)
                if path_from_manifest(root, path).is_file() or len(places) == 1:
                    yield image_id, root, path
                    break

    def paths(self, store: Store) -> dict[str, Path]:
        """Return the absolute path of each image of a store whose place is known."""
        return {
            image_id: path_from_manifest(root, path)
            for part in store.parts
            for image_id, root, path in self.of_part(store, part)
        }

    def _is_root(self, part: Part, root_name: str) -> bool:
        root = str(path_from_manifest(Path("/"), root_name))
        return self._key is not None and self._key.id_of("root", root) == part.plan.root

    def _known(self, key: Key) -> dict[str, list[tuple[str, str]]]:
        if self._places is None:
            self._places = {}
            table = read_map(key)
            for image_id, root, path in zip(
                *(table.column(name).to_pylist() for name in ("image_id", "root", "path")), strict=True
            ):
                if image_id is not None:
                    self._places.setdefault(image_id, []).append((root, path))
        return self._places


def root_of(store: Store, part: Part) -> Path:
    """Return the folder that a part's paths are relative to: seen from the store's, or as older parts wrote it."""
    root = Path(part.plan.root)
    # The store may be reached by a link from another folder.
    beside = [folder.parent / root for folder in (store.path.absolute(), store.path.resolve())]
    return next((folder for folder in beside if folder.is_dir()), root).resolve()


def require_key_of(stores: Sequence[Store], key: Key) -> None:
    """Refuse a key that is not that of the stores' pseudonyms.

    Raises
    ------
    DataError
        Which part has another.
    """
    for store in stores:
        for part in store.parts:
            plan = part.plan
            if plan.key_fingerprint and plan.key_fingerprint != key.fingerprint:
                raise DataError(
                    f"{key.path} is another key than that of part {plan.number} of store {store.path}: its fingerprint "
                    f"is {key.fingerprint}, the part was made with {plan.key_fingerprint}. Name the part's key file"
                )


def hidden_images(store: Store) -> int:
    """Return how many images of a store have hidden paths."""
    return sum(part.plan.rows for part in store.parts if part.plan.hides_paths)
