"""A hospital's folder of DICOM files, full of what must not leave it, and a search through what was written."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import unicodedata
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq

from tests.dicom_objects import dicom_object, save, with_pixels

_SURNAMES = ("Müller", "Öztürk", "Şahin", "Grünwald", "Nováková", "Schäfer", "Łukasz", "Ångström")
_GIVEN = ("Änne", "Jürgen", "Zoë", "Björn")
_CLASS = "1.2.840.10008.5.1.4.1.1.1.1"


@dataclass
class Hospital:
    """Where the files lie, and every value that names a patient.

    Parameters
    ----------
    root
        The folder.
    secrets
        Identifying values, folder and file names among them.
    patients, studies, accessions, instances
        PatientID, StudyInstanceUID, AccessionNumber and SOPInstanceUID of each study, in order.
    files
        Path of each study's first image.
    """

    root: Path
    secrets: set[str] = field(default_factory=set)
    patients: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    accessions: list[str] = field(default_factory=list)
    instances: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def write_hospital(root: Path, *, studies: int = 24, seed: int = 0) -> Hospital:
    """Write two images a study: dark ones without, bright ones with a stripe; every second study has the stripe."""
    made, draw = Hospital(root), np.random.default_rng(seed)
    for number in range(studies):
        surname, given = _SURNAMES[number % len(_SURNAMES)], _GIVEN[number % len(_GIVEN)]
        study, day = f"1.2.276.0.7230010.3.1.2.{880000 + number}", f"2021{1 + number % 12:02d}17"
        patient, accession = f"PAT-{48213 + number}", f"ACC{7033000 + number}"
        folder = f"{surname}_{given}_{number:02d}/Röntgen {day}"
        for image in range(2):
            instance = f"{study}.{image + 1}.{int(draw.integers(10**8))}"
            grey = draw.integers(0, 900, (1, 48, 40)).astype(np.uint16)
            if number % 2:
                grey[0, 18:26] += 2500
            found = dicom_object(
                _CLASS, "DX", PatientID=patient, PatientName=f"{surname}^{given}", StudyInstanceUID=study,
                SeriesInstanceUID=f"{study}.9", SOPInstanceUID=instance, AccessionNumber=accession,
                StudyDate=day, AcquisitionDate=day, PatientBirthDate=f"19{40 + number:02d}0611",
                InstitutionName="Klinikum Süderbrarup", ReferringPhysicianName="Weißbrodt^Käthe",
                StudyDescription="Handgelenk Werkstattunfall", OperatorsName="Drossel^Ida",
                PatientAddress="Lindenstraße 77", OtherPatientIDs=f"KV{990100 + number}",
            )  # fmt: skip
            found.SpecificCharacterSet = "ISO_IR 192"
            found.file_meta.MediaStorageSOPInstanceUID = instance
            name = f"Bild {surname} {image}.dcm"
            path = save(with_pixels(found, grey), root / folder / name)
            # An archive writes a file when the picture is taken: its time is a date of the patient.
            written = 1615967553 + 86400 * number + image
            os.utime(path, (written, written))
            made.secrets.add(str(written))
            made.secrets |= {instance, f"{study}.9", name, f"19{40 + number:02d}0611", f"KV{990100 + number}"}
            if image == 0:
                made.files.append(path)
                made.instances.append(instance)
        made.patients.append(patient)
        made.studies.append(study)
        made.accessions.append(accession)
        made.secrets |= {*folder.split("/"), surname, patient, study, accession, day, f"{surname}^{given}"}
    made.secrets |= {
        "Süderbrarup", "Weißbrodt", "Werkstattunfall", "Drossel", "Lindenstraße", "Jürgen", "Björn", root.name,
    }  # fmt: skip
    _spoil(made)
    return made


def _spoil(made: Hospital) -> None:
    """Add what fails or is left out, each named after somebody: cut files, a copy, a text, a name in Latin-1."""
    cut = _file(made, 0).with_name("Kühnemann abgeschnitten.dcm")
    cut.write_bytes(
        _file(made, 1)
        .read_bytes()[:-900]
        .replace(made.instances[1 % len(made.files)].encode(), b"1.2.276.99.4711.12345678")
    )
    _file(made, 2).with_name("Kopie von Vollstädt.dcm").write_bytes(_file(made, 2).read_bytes())
    (made.root / "Befund Habermann.txt").write_text("Frau Habermann, geb. 11.06.1950")
    broken = made.root / "Jankowski" / "kaputt.dcm"
    broken.parent.mkdir()
    broken.write_bytes(b"\0" * 128 + b"DICM" + b"Jankowski" * 40)
    (made.root / b"Fl\xfcckiger".decode("utf-8", "surrogateescape")).write_bytes(
        _file(made, 3).read_bytes()[:700]
    )
    made.secrets |= {
        "Kühnemann",
        "Vollstädt",
        "Habermann",
        "Jankowski",
        "Flückiger",
        "1.2.276.99.4711",
        "kaputt",
    }


def _file(made: Hospital, number: int) -> Path:
    return made.files[number % len(made.files)]


def leaks(secrets: set[str], *places: Path) -> list[tuple[str, str]]:
    """Return (file, value) of each identifying value that is found in a file below the places, or in a file's name.

    Tables, arrays and archives are opened, base64 is decoded, and values are looked for in UTF-8, Latin-1 and UTF-16,
    composed and decomposed, in any letter case.
    """
    found = []
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                relative = str(path.relative_to(place)) if place.is_dir() else path.name
                texts = [relative.encode(), *contents(path.read_bytes())]
                found += [(relative, value) for value in sorted(secrets) if _is_in(value, texts)]
    return found


def contents(payload: bytes) -> list[bytes]:
    """Return the bytes, and what they hold when they are opened."""
    found = [payload]
    if payload[:4] == b"PAR1":
        table = pq.read_table(io.BytesIO(payload))
        found.append(repr(table.schema).encode() + repr(table.schema.metadata).encode())
        cells = ("\n".join(map(str, column.slice(0, 2000).to_pylist())) for column in table.columns)
        found += [text.encode("utf-8", "surrogatepass") for text in cells]
    elif payload[:4] == b"PK\3\4":
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            for name in archive.namelist():
                found += [name.encode(), *contents(archive.read(name))]
    elif payload[:6] == b"\x93NUMPY":
        array = np.load(io.BytesIO(payload))
        found += ["\n".join(array.astype(str).ravel()).encode()] if array.dtype.kind in "US" else []
    elif payload[1:4] == b"HDF":
        with h5py.File(io.BytesIO(payload)) as file:
            file.visititems(lambda name, entry: found.append(_of_hdf5(name, entry)))
    for match in re.finditer(rb"base64,([A-Za-z0-9+/=]{16,})", payload):
        found.append(base64.b64decode(match[1]))
    return found


def _of_hdf5(name: str, entry: h5py.Dataset | h5py.Group) -> bytes:
    attributes = repr(dict(entry.attrs)).encode()
    cells = b""
    if isinstance(entry, h5py.Dataset) and h5py.check_string_dtype(entry.dtype):
        cells = b"\n".join(entry[()].ravel())
    return name.encode() + attributes + cells


def _is_in(value: str, texts: list[bytes]) -> bool:
    forms = {
        unicodedata.normalize(form, spelled)
        for form in ("NFC", "NFD")
        for spelled in (value, value.lower(), value.upper())
    }
    wanted = set()
    for form in forms:
        wanted.add(json.dumps(form)[1:-1].encode())
        for encoding in ("utf-8", "latin-1", "utf-16-le"):
            try:
                wanted.add(form.encode(encoding))
            except UnicodeEncodeError:
                continue
    return any(needle in text for text in texts for needle in wanted)
