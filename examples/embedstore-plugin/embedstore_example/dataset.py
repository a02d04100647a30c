"""A data set reader: one folder for each class, in it one for each patient, in it the images."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.errors import DataError
from embedstore.manifest import manifest_from_columns
from embedstore.task import Task


class ClassFolders:
    """Reads ``<root>/<class>/<patient>/<image>``; the classes become the task ``class``.

    Parameters
    ----------
    suffix
        Ending of the images' names: ``--reader-option suffix=.dcm``.
    """

    name = "class-folders"

    def __init__(self, suffix: str = ".png") -> None:
        self.suffix = suffix

    def read(self, root: Path) -> Collection:
        """Index the folder; no image is opened.

        Raises
        ------
        DataError
            If there are not two classes with images.
        """
        # Sorted: the same folder must give the same manifest, whatever order the disk lists it in.
        paths = sorted(path.relative_to(root).as_posix() for path in root.glob(f"*/*/*{self.suffix}"))
        classes = tuple(sorted({path.split("/")[0] for path in paths}))
        if len(classes) < 2:
            raise DataError(
                f"{root}: expected <class>/<patient>/<image>{self.suffix} with two classes or more; "
                f"found {len(paths)} images of {len(classes)} classes"
            )
        patients = [path.split("/")[1] for path in paths]
        manifest = manifest_from_columns(
            {"image_id": paths, "path": paths, "frame": [0] * len(paths), "patient_id": patients},
            source=str(root),
        )
        labels = pa.table({"unit_id": paths, "class": [path.split("/")[0] for path in paths]})
        task = Task(name="class", unit="image", targets=("class",), classes=classes, labels=labels)
        summary: dict[str, str | int] = {"images": len(paths), "patients": len(set(patients))}
        return Collection(self.name, root, manifest, (task,), summary)
