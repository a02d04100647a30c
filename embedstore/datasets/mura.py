"""MURA v1.1: radiographs of the upper limb, labelled per study as normal or abnormal.

Layout and counts: Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
Radiographs", arXiv 1712.06957, and the tables of the download itself. The four tables have no header; rows
start with ``MURA-v1.1/`` and study rows end in a slash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from embedstore.datasets.base import NOTICE, Collection
from embedstore.datasets.folder_summary import absent_files, count_records, describe_absent, refuse_folder
from embedstore.errors import DataError
from embedstore.files import iter_lines
from embedstore.manifest import Manifest, manifest_from_columns
from embedstore.task import Task

FOLDER = "MURA-v1.1"
SPLITS = ("train", "valid")
CLASSES = ("normal", "abnormal")


@dataclass(frozen=True)
class SplitCounts:
    """Images and studies of one split, by label."""

    images: int
    normal: int
    abnormal: int


COMPLETE = {"train": SplitCounts(36808, 8280, 5177), "valid": SplitCounts(3197, 661, 538)}

_STUDY = r"(train|valid)/(XR_[A-Z]+)/(patient\d+)/(study\d+_(positive|negative))"
_IMAGE_PATH = re.compile(rf"(?:{re.escape(FOLDER)}/)?({_STUDY}/image\d+\.png)")
_STUDY_PATH = re.compile(rf"(?:{re.escape(FOLDER)}/)?({_STUDY})/?")
_IMAGE_NAME = re.compile(r"image\d+\.png")
_LABELS = {"negative": 0, "positive": 1}


class Mura:
    """Reads the folder ``MURA-v1.1``, or the folder that holds it, complete or in part.

    `image_id` is the path without ``MURA-v1.1/``, and so is `study_id`. A patient id is shared by the body
    parts of one patient. A split without its image table is read from its folders. An image that a table
    names and the disk does not have stays a record: extraction counts it as ``missing``.

    Examples
    --------
    >>> Mura().name
    'mura'
    """

    task_names = ("abnormal",)

    name = "mura"

    def read(self, root: Path) -> Collection:
        """Index the tree at `root`; no image is opened.

        Raises
        ------
        DataError
            If `root` is something else, a table's row is malformed or doubled, or a table's label contradicts
            the folder's name.
        """
        folder = _find_folder(root)
        images = [image for split in SPLITS for image in _read_images(folder, split)]
        if not images:
            raise refuse_folder(folder, expected="MURA images below train/ or valid/", advice=_ADVICE)
        manifest = _build_manifest(images, str(folder))
        labels, without_images = _read_labels(folder, images)
        summary = count_records(manifest) | _describe(folder, manifest, labels)
        if without_images:
            summary["studies without images"] = without_images
        return Collection(self.name, folder, manifest, (_abnormal_task(labels),), summary)


_ADVICE = "Point the root at the unpacked MURA-v1.1 folder or at the folder that holds it."
_Image = tuple[str, str, str, str, str]  # path, split, anatomy, patient, study folder's name


def _find_folder(root: Path) -> Path:
    for folder in (root, root / FOLDER):
        tables = any((folder / f"{split}_image_paths.csv").is_file() for split in SPLITS)
        if tables or any(any((folder / split).glob("XR_*")) for split in SPLITS):
            return folder
    raise refuse_folder(
        root,
        expected=f"MURA v1.1 (train_image_paths.csv, train/XR_*, or a folder {FOLDER} with these)",
        advice=_ADVICE,
    )


def _read_images(folder: Path, split: str) -> Iterator[_Image]:
    table = folder / f"{split}_image_paths.csv"
    seen: dict[str, int] = {}
    for number, path in _iter_table(table) if table.is_file() else enumerate(_scan(folder, split), start=1):
        name = path.rpartition("/")[2]
        if name.startswith("."):  # ._image1.png and .DS_Store come with copies made on macOS
            continue
        match = _IMAGE_PATH.fullmatch(path)
        if match is None or match[2] != split:
            raise DataError(
                f"{table}: line {number}: must be "
                f"{FOLDER}/{split}/XR_*/patient*/study*_positive|negative/image*.png; found {path[:200]!r}. "
                "Restore the table from the download, or delete it to read the folders."
            )
        image = match[1]
        if image in seen:
            raise DataError(
                f"{table}: line {number}: {image!r} stands on line {seen[image]} already; delete one"
            )
        seen[image] = number
        yield image, match[2], match[3], match[4], match[5]


def _scan(folder: Path, split: str) -> list[str]:
    """Return the image paths of a split that has no table, relative to `folder`, in a fixed order."""
    found = []
    for parent, folders, names in os.walk(folder / split):
        folders.sort()
        below = Path(parent).relative_to(folder).as_posix()
        if _STUDY_PATH.fullmatch(below):
            images = [name for name in names if _IMAGE_NAME.fullmatch(name)]
            found += [f"{below}/{name}" for name in sorted(images, key=lambda name: (len(name), name))]
    return found


def _iter_table(table: Path) -> Iterator[tuple[int, str]]:
    try:
        for number, line in iter_lines(table):
            if line.strip():
                yield number, line.strip()
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{table}: must be a text table of paths; cannot be read: {error}") from error


def _build_manifest(images: list[_Image], source: str) -> Manifest:
    paths, splits, anatomies, patients, _ = (list(column) for column in zip(*images, strict=True))
    return manifest_from_columns(
        {
            "image_id": paths,
            "path": paths,
            "frame": [0] * len(paths),
            "patient_id": patients,
            "study_id": [path.rpartition("/")[0] for path in paths],
            "split": splits,
            "modality": ["CR"] * len(paths),
            "anatomy": anatomies,
        },
        source=source,
    )


def _read_labels(folder: Path, images: list[_Image]) -> tuple[dict[str, int], int]:
    """Return the label of every study that has images, and how many labelled studies have none.

    The folder's name carries the label as well; the table is read to check it.
    """
    labels = {}
    for path, *_, study in images:
        labels[path.rpartition("/")[0]] = _LABELS[study.rpartition("_")[2]]
    without_images = 0
    for split in SPLITS:
        table = folder / f"{split}_labeled_studies.csv"
        for number, row in _iter_table(table) if table.is_file() else ():
            study, label = _parse_label(table, split, number, row)
            if label != _LABELS[study.rpartition("_")[2]]:
                raise DataError(
                    f"{table}: line {number}: label {label} ({CLASSES[label]}) contradicts the folder's name "
                    f"{study!r}. "
                    "Restore the table or the folder from the download."
                )
            without_images += study not in labels
    return labels, without_images


def _parse_label(table: Path, split: str, number: int, row: str) -> tuple[str, int]:
    path, _, label = row.rpartition(",")
    match = _STUDY_PATH.fullmatch(path)
    if match is None or match[2] != split or label not in {"0", "1"}:
        raise DataError(
            f"{table}: line {number}: must be "
            f"{FOLDER}/{split}/XR_*/patient*/study*_positive|negative/,0 or ,1; found {row[:200]!r}. "
            "Restore the table from the download."
        )
    return match[1], int(label)


def _abnormal_task(labels: dict[str, int]) -> Task:
    table = pa.table({"unit_id": list(labels), "abnormal": [CLASSES[label] for label in labels.values()]})
    return Task(
        name="abnormal",
        unit="study",
        targets=("abnormal",),
        classes=CLASSES,
        labels=table,
        positive="abnormal",
        pooling="mean-probability",
        primary_metric="kappa",
        subgroups=("anatomy",),
    )


def _describe(folder: Path, manifest: Manifest, labels: dict[str, int]) -> dict[str, str | int]:
    abnormal = sum(labels.values())
    summary: dict[str, str | int] = {
        "normal studies": len(labels) - abnormal,
        "abnormal studies": abnormal,
        "anatomies": ", ".join(sorted(set(manifest.column("anatomy")))),
    }
    patients = {split: set[str]() for split in SPLITS}
    for split, patient in zip(manifest.column("split"), manifest.column("patient_id"), strict=True):
        patients[split].add(patient)
    if both := patients["train"] & patients["valid"]:
        summary["patients in both splits"] = len(both)
    absent = absent_files(folder, manifest.column("path"))
    if absent:
        summary["absent"] = describe_absent(absent, len(manifest))
    if (folder / NOTICE).is_file():
        summary["phantom"] = "computer-drawn images, not patients"
    else:
        summary["compared with MURA v1.1"] = _compare(manifest, labels)
    return summary


def _compare(manifest: Manifest, labels: dict[str, int]) -> str:
    """Say whether the counts are those of the published set, and by how much they differ."""
    splits = manifest.column("split")
    differing = []
    for split, complete in COMPLETE.items():
        own = [label for study, label in labels.items() if study.startswith(f"{split}/")]
        found = SplitCounts(splits.count(split), len(own) - sum(own), sum(own))
        if found != complete:
            differing.append(
                f"{split} lists {found.images:,} of {complete.images:,} images, "
                f"{found.normal:,} of {complete.normal:,} normal and "
                f"{found.abnormal:,} of {complete.abnormal:,} abnormal studies"
            )
    return "; ".join(differing) or "same counts"
