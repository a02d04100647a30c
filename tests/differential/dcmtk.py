"""What dcmtk shows of DICOM files: the independent reference, one short process for each file."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

PROGRAMS = ("dcm2pnm", "dcmj2pnm", "dcml2pnm")
MISSING = "needs dcmtk (`apt-get install dcmtk`), whose rendering is the reference"
# Of dcmtk's dictionary (250 kB of text, read by every process): file meta, image, overlay and pixel groups.
_GROUPS = ("(0002,", "(0008,", "(0018,", "(0028,", "(2050,", "(60", "(fffe,", "(7fe0,")
_WORKERS = 2


def is_installed() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


def render(calls: Sequence[tuple[str, Sequence[str], Path, Path]], folder: Path) -> None:
    """Render files, all frames of each: ``<out>.<frame>.pgm`` or ``.ppm`` with 16 bits a sample.

    Parameters
    ----------
    calls
        Program, its options, DICOM file, and path of the pictures without the ending. What cannot be rendered
        leaves no picture.
    folder
        For files of the runner.
    """
    lines = [
        " ".join([program, "-q", "-O", "+Fa", "+opw", *options, str(path), str(out)])
        for program, options, path, out in calls
    ]
    arguments = folder / "calls"
    arguments.write_text("\n".join(lines) + "\n")
    environment = os.environ | _dictionary(folder)
    with arguments.open() as listed:
        # Failing calls are seen by the picture they do not leave.
        subprocess.run(
            ["xargs", "-L1", f"-P{_WORKERS}", "env"],
            stdin=listed,
            env=environment,
            check=False,
            capture_output=True,
        )


def rendered(out: Path, frames: int) -> np.ndarray | None:
    """Return (frames, h, w) or (frames, h, w, 3) of 0 ... 65,535, or None if dcmtk refused the file."""
    pictures = [_picture(path) for frame in range(frames) for path in _pictures(out, frame)]
    return np.stack(pictures) if len(pictures) == frames else None


def _pictures(out: Path, frame: int) -> Iterable[Path]:
    return (path for path in (Path(f"{out}.{frame}.pgm"), Path(f"{out}.{frame}.ppm")) if path.exists())


def _picture(path: Path) -> np.ndarray:
    kind, width, height, largest, *values = path.read_text().split()
    assert largest == "65535", (path, largest)
    shape = (int(height), int(width)) if kind == "P2" else (int(height), int(width), 3)
    return np.array(values, np.int64).reshape(shape)


@cache
def _dictionary_text() -> str:
    places = sorted(Path("/usr/share").glob("libdcmtk*/dicom.dic"))
    lines = places[-1].read_text("latin-1").splitlines() if places else []
    return "\n".join(line for line in lines if line.lower().startswith(_GROUPS)) + "\n"


def _dictionary(folder: Path) -> dict[str, str]:
    """Return the setting of a short dictionary: it makes a process three times as fast."""
    text = _dictionary_text()
    if len(text) < 1000:
        return {}
    path = folder / "short.dic"
    path.write_text(text, "latin-1")
    return {"DCMDICTPATH": str(path)}
