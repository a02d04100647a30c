#!/usr/bin/env bash
# pydicom 3.0.2 with its Pillow handler converts YCbCr to RGB twice where a baseline JPEG has an Adobe segment with
# transform 1 (YCbCr) and the header says YBR_FULL_422, as PS3.3 C.7.6.3.1.2 wants it: Pillow follows the segment and
# returns RGB, and pydicom converts by the header again. A flat orange (200, 60, 30) arrives as green (60, 255, 79);
# dcmj2pnm 3.6.7 shows (199, 60, 29).
#
# Found with pydicom 3.0.2, pillow 13.0.0, numpy 2.4.6. Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io
import sys
import warnings

import numpy as np
import PIL
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

warnings.simplefilter("ignore")
print("pydicom", pydicom.__version__, "pillow", PIL.__version__, "numpy", np.__version__)
truth = (200, 60, 30)
buffer = io.BytesIO()
Image.new("RGB", (32, 32), truth).save(buffer, "JPEG", quality=95)
jfif = buffer.getvalue()
# The same picture with an Adobe segment that says YCbCr in the place of JFIF (18 bytes after SOI).
adobe = jfif[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01" + jfif[20:]
assert max(abs(int(a) - b) for a, b in zip(Image.open(io.BytesIO(adobe)).getpixel((0, 0)), truth)) <= 2
found = {}
for name, stream in (("JFIF", jfif), ("Adobe", adobe)):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    made.Rows = made.Columns = 32
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "YBR_FULL_422", 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = encapsulate([stream + bytes(len(stream) % 2)])
    made["PixelData"].VR = "OB"
    made.save_as(f"{name}.dcm", enforce_file_format=True)
    found[name] = tuple(int(v) for v in pydicom.dcmread(f"{name}.dcm").pixel_array[16, 16])
    print(f"{name:>6}: encoded {truth}, pixel_array has {found[name]}")
near = {name: max(abs(a - b) for a, b in zip(pixel, truth)) <= 2 for name, pixel in found.items()}
if near["JFIF"] and not near["Adobe"]:
    print("still so: the picture with the Adobe segment is converted twice")
else:
    sys.exit("changed: both pictures have the colour that was encoded, or neither has")
PY
