#!/usr/bin/env bash
# imagecodecs 2026.3.6: `ljpeg_decode` returns other pixels, without an error, for lossless JPEG (ITU-T T.81 annex H) with a
# point transform or restart intervals, and `jpegsof3_decode` leaves the point transform undone; `jpeg8_decode` is exact.
#
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check imagecodecs==2026.3.6 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import struct
import sys

import imagecodecs
import numpy as np

print("imagecodecs", imagecodecs.__version__, "numpy", np.__version__)


def encoded(values, precision, *, transform=0, restart_rows=0):
    """First-order prediction, 17 categories of difference with codes of five bits each."""
    values = values.astype(np.int64) >> transform
    rows, columns = values.shape
    intervals, bits = [], ""
    for row in range(rows):
        first = row % restart_rows == 0 if restart_rows else row == 0
        for column in range(columns):
            if column:
                predicted = values[row, column - 1]
            else:
                predicted = 1 << (precision - transform - 1) if first else values[row - 1, 0]
            difference = int(values[row, column] - predicted)
            category = abs(difference).bit_length()
            extra = difference if difference > 0 else difference + (1 << category) - 1
            bits += f"{category:05b}" + (f"{extra:0{category}b}" if category else "")
        if row == rows - 1 or (restart_rows and (row + 1) % restart_rows == 0):
            bits += "1" * (-len(bits) % 8)
            intervals.append(int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0"))
            bits = ""
    entropy = intervals[0]
    for number, interval in enumerate(intervals[1:]):
        entropy += bytes([0xFF, 0xD0 + number % 8]) + interval
    return b"".join([
        b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB3B", 11, precision, rows, columns, 1, 1, 0x11, 0),
        b"\xff\xc4" + struct.pack(">HB16B", 36, 0, *([0] * 4 + [17] + [0] * 11)) + bytes(range(17)),
        b"\xff\xdd" + struct.pack(">HH", 4, restart_rows * columns) if restart_rows else b"",
        b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, 1, 0, 1, 0, transform),
        entropy, b"\xff\xd9",
    ])


pixels = np.add.outer(np.arange(40) * 50, np.arange(40) * 45).astype(np.uint16)
seen = {}
for kind, options in (("plain", {}), ("transform", {"transform": 2}), ("restarts", {"restart_rows": 5})):
    shift = options.get("transform", 0)
    for codec in ("jpeg8", "ljpeg", "jpegsof3"):
        try:
            found = getattr(imagecodecs, f"{codec}_decode")(encoded(pixels, 12, **options))
            seen[kind, codec] = "exact" if np.array_equal(found, pixels >> shift << shift) else "WRONG, no error"
        except Exception as error:
            seen[kind, codec] = f"refused: {error}"
        print(f"{kind:>10} {codec:>9}: {seen[kind, codec]}")
wrong = {key for key, outcome in seen.items() if outcome.startswith("WRONG")}
if wrong != {("transform", "ljpeg"), ("transform", "jpegsof3"), ("restarts", "ljpeg")}:
    sys.exit("changed: other codecs are wrong than were")
print("still so")
PY
