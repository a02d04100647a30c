"""Phantom MURA: computer-drawn radiographs in the true folder and CSV format of MURA v1.1.

MURA's licence forbids passing its images on, so tests and the demo use these. Every image's random
stream depends on its seed, patient, study and number alone: a larger tree begins with the smaller one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.phantoms.bones import ANATOMIES, Anatomy, draw_anatomy
from embedstore.phantoms.folder import claim_folder
from embedstore.phantoms.radiograph import LONGEST_SIDE_PX, Film, Finding, draw_radiograph

MURA_FOLDER = "MURA-v1.1"
DEFAULT_PATIENTS = 260
# Three patients of thirteen are for validation: 200 and 60 of the default 260.
_VALID_EVERY, _VALID_PLACES = 13, (4, 8, 12)
_ABNORMAL_SHARE = 0.42  # of studies; MURA: 0.38 in train, 0.45 in valid
# Bone that was broken or operated on thins out while the limb rests; age does the same to healthy bone.
_POROSITY_NORMAL, _POROSITY_ABNORMAL = (1.1, 5.5), (3.2, 1.5)
_FRESH_SHARE = 0.05  # of abnormal studies: too early for the bone to have changed
_KINDS = ("fracture", "plate", "nail", "wires", "lesion")
_KIND_SHARES = (0.34, 0.26, 0.14, 0.14, 0.12)
# An AppleDouble header, as the resource forks that macOS leaves in copied trees.
_RESOURCE_FORK = bytes.fromhex("00051607000200004d6163204f532058")


@dataclass(frozen=True)
class PhantomSummary:
    """What was written.

    Parameters
    ----------
    root
        The folder ``MURA-v1.1``.
    patients, studies, images, abnormal_studies
        Counts over both splits.
    """

    root: Path
    patients: int
    studies: int
    images: int
    abnormal_studies: int


@dataclass(frozen=True)
class _Study:
    patient: int
    number: int
    split: str
    anatomy: str
    views: int
    finding: Finding | None
    porosity: float

    @property
    def folder(self) -> str:
        label = "negative" if self.finding is None else "positive"
        return f"{self.split}/{self.anatomy}/patient{self.patient:05d}/study{self.number}_{label}"


def write_phantom_mura(root: StrPath, *, patients: int = DEFAULT_PATIENTS, seed: int = 0) -> PhantomSummary:
    """Write a phantom MURA tree.

    Parameters
    ----------
    root
        The folder that will hold ``MURA-v1.1``; made if it is not there.
    patients
        How many patients, both splits together.
    seed
        The same seed and number give the same bytes.

    Raises
    ------
    UsageError
        If `patients` is less than 1 or `seed` is negative.
    DataError
        If ``MURA-v1.1`` is there already and is not this phantom: nothing is ever written over it.

    Examples
    --------
    >>> es.write_phantom_mura("phantoms", patients=1).patients
    1
    """
    if patients < 1 or seed < 0:
        raise UsageError(f"patients must be at least 1 and seed at least 0; found {patients} and {seed}")
    folder = Path(root) / MURA_FOLDER
    claim_folder(folder, _notice(patients, seed))
    studies = [study for patient in range(1, patients + 1) for study in _plan_patient(patient, seed)]
    # Drawing spends its time inside NumPy and zlib, which let other threads run.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(lambda study: _write_study(folder, study, seed), studies):
            pass
    _write_tables(folder, studies)
    (folder / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    return PhantomSummary(
        root=folder,
        patients=patients,
        studies=len(studies),
        images=sum(study.views for study in studies),
        abnormal_studies=sum(study.finding is not None for study in studies),
    )


def _notice(patients: int, seed: int) -> str:
    return (
        "These radiographs are phantoms drawn by a computer. They show no patient, and MURA is not their\n"
        "source; only the folders, names and tables are laid out as in MURA v1.1.\n"
        f"patients={patients} seed={seed}\n"
    )


def _plan_patient(patient: int, seed: int) -> Iterator[_Study]:
    chance = np.random.default_rng([seed, patient])
    turn, place = divmod(patient - 1, _VALID_EVERY)
    split = "valid" if place in _VALID_PLACES else "train"
    # Counting within the split gives every split all seven body parts as soon as it has seven patients.
    if split == "valid":
        order = turn * len(_VALID_PLACES) + _VALID_PLACES.index(place)
    else:
        order = patient - 1 - turn * len(_VALID_PLACES) - sum(valid < place for valid in _VALID_PLACES)
    anatomies = [ANATOMIES[order % len(ANATOMIES)]]
    if chance.random() < 0.12:
        other = ANATOMIES[chance.integers(len(ANATOMIES))]
        anatomies.append(anatomies[0] if chance.random() < 0.5 else other)
    for index, anatomy in enumerate(anatomies):
        number = 1 + anatomies[:index].count(anatomy)
        views = int(chance.choice((1, 2, 3, 4), p=(0.2, 0.35, 0.35, 0.1)))
        finding = _draw_finding(anatomy, patient, seed, chance) if chance.random() < _ABNORMAL_SHARE else None
        rested = finding is not None and chance.random() >= _FRESH_SHARE
        porosity = float(chance.beta(*(_POROSITY_ABNORMAL if rested else _POROSITY_NORMAL)))
        yield _Study(patient, number, split, anatomy, views, finding, porosity)


def _draw_finding(anatomy: str, patient: int, seed: int, chance: np.random.Generator) -> Finding:
    bones = draw_anatomy(anatomy, view=0, build=_build(patient, seed)).bones
    kind = str(chance.choice(_KINDS, p=_KIND_SHARES))
    # Long bones are nailed and plated; a finger bone is wired.
    main = [index for index, bone in enumerate(bones) if bone.main]
    longest = max(bones[index].length_cm for index in main)
    if kind in ("nail", "plate"):
        main = [index for index in main if bones[index].length_cm > 0.6 * longest]
    return Finding(
        kind=kind,
        bone=int(chance.choice(main)),
        place=float(chance.uniform(0.25, 0.75)),
        severity=float(chance.beta(1.3, 1.5)),
        slope=float(chance.normal(0.0, 0.5)),
    )


def _build(patient: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, patient, 1])


def _write_study(folder: Path, study: _Study, seed: int) -> None:
    target = folder / study.folder
    target.mkdir(parents=True, exist_ok=True)
    for view in range(study.views):
        key = [seed, study.patient, ANATOMIES.index(study.anatomy), study.number, view]
        chance = np.random.default_rng([2, *key])
        anatomy = draw_anatomy(study.anatomy, view=view, build=_build(study.patient, seed))
        film = _draw_film(anatomy, study.porosity, _build(study.patient, seed), chance)
        levels = draw_radiograph(anatomy, study.finding, film, chance)
        image = Image.fromarray(levels)
        if chance.random() < 0.25:  # MURA mixes grey and RGB files with equal channels
            image = image.convert("RGB")
        name = f"image{view + 1}.png"
        image.save(target / name, compress_level=1)
        if chance.random() < 0.02:
            (target / f"._{name}").write_bytes(_RESOURCE_FORK)


def _draw_film(
    anatomy: Anatomy, porosity: float, build: np.random.Generator, chance: np.random.Generator
) -> Film:
    growing, left = build.random(2) < (0.12, 0.5)
    quarter_turn = chance.random() < 0.05
    rotation = 90.0 * chance.choice((1, 2, 3)) if quarter_turn else float(chance.normal(0.0, 4.0))
    if not quarter_turn and chance.random() < 0.12:
        rotation = float(chance.uniform(-30.0, 30.0))
    if not quarter_turn and abs(rotation) < 5.0:
        tilt, rotation = rotation, 0.0  # a tilted limb in a straight frame
    else:
        tilt = 0.0
    width_cm, height_cm = anatomy.field_cm
    ratio = width_cm / height_cm * float(chance.uniform(0.9, 1.15))
    size = (
        (LONGEST_SIDE_PX, max(int(LONGEST_SIDE_PX / ratio), 200))
        if ratio > 1
        else (max(int(LONGEST_SIDE_PX * ratio), 200), LONGEST_SIDE_PX)
    )
    scale = max(size) / max(width_cm, height_cm) * float(chance.uniform(0.92, 1.12))
    if quarter_turn and rotation != 180.0:
        size = (size[1], size[0])
    centre = (size[0] * (0.5 + chance.normal(0, 0.03)), size[1] * (0.5 + chance.normal(0, 0.03)))
    return Film(
        size_px=size,
        px_per_cm=scale,
        rotation_deg=float(rotation or tilt),
        centre_px=(float(centre[0]), float(centre[1])),
        mirror=-1 if left else 1,
        exposure=float(chance.uniform(0.75, 1.35)),
        noise=float(chance.uniform(0.8, 2.2)),
        growth_plates=bool(growing),
        marker="L" if left else "R",
        inverted=bool(chance.random() < 0.03),
        porosity=porosity,
    )


def _write_tables(folder: Path, studies: list[_Study]) -> None:
    ordered = sorted(studies, key=lambda study: (study.anatomy, study.patient, study.number))
    for split in ("train", "valid"):
        own = [study for study in ordered if study.split == split]
        labels = [f"{MURA_FOLDER}/{study.folder}/,{int(study.finding is not None)}\n" for study in own]
        images = [(study, view + 1) for study in own for view in range(study.views)]
        paths = [f"{MURA_FOLDER}/{study.folder}/image{number}.png\n" for study, number in images]
        (folder / f"{split}_labeled_studies.csv").write_text("".join(labels), encoding="utf-8", newline="")
        (folder / f"{split}_image_paths.csv").write_text("".join(paths), encoding="utf-8", newline="")
