"""dcmtk's own rendering of DICOM files, where its tools are installed (Debian package ``dcmtk``)."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

needs_dcmtk = pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="needs dcmj2pnm of dcmtk")


def shown(content: bytes, folder: Path, *options: str) -> np.ndarray:
    """Return the 8-bit picture that ``dcmj2pnm`` makes of a file; ``+Wm`` stretches min-max, ``+Wi 1`` windows."""
    source, picture = folder / "dcmtk.dcm", folder / "dcmtk.pnm"
    source.write_bytes(content)
    picture.unlink(missing_ok=True)
    command = ["dcmj2pnm", "+op", *options, str(source), str(picture)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if not picture.exists():
        raise AssertionError(f"{' '.join(command)}: {ended.stderr}")
    return np.asarray(Image.open(io.BytesIO(picture.read_bytes())))
