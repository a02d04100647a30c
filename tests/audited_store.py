"""A small collection with every fault that an audit looks for, each planted once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage

from cli.main import run

SIDE_PX = 192
PATIENTS = 26
# Fault -> the clean image that it is made of; those of "bar" have even numbers.
PLANTED = {
    "copy": 0,
    "jpeg": 2,
    "resized": 4,
    "turned": 6,
    "cut": 8,
    "negative": 10,
    "quarter": 12,
    "text": 14,
}


def film(number: int) -> Image.Image:
    """Return a bar (even numbers) or a ring (odd ones), with a grain of its own."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] / SIDE_PX
    away = rng.uniform(-0.04, 0.04, 2)
    if number % 2 == 0:
        # Wider below, so that it has an upper end.
        shape = (np.abs(x - 0.5 - away[0]) < 0.1 + 0.15 * y) & (y > 0.2)
    else:
        shape = np.abs(np.hypot(x - 0.5 - away[0], y - 0.4 - away[1]) - 0.25) < 0.06
    grain = ndimage.gaussian_filter(rng.normal(size=(SIDE_PX, SIDE_PX)), 1.0)
    grey = 40 + 110 * ndimage.gaussian_filter(shape.astype(float), 3) + 35 * grain
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


def _faulty(fault: str, image: Image.Image) -> Image.Image:
    if fault == "resized":
        return image.resize((120, 120), Image.Resampling.BILINEAR)
    if fault == "turned":
        return image.rotate(3, Image.Resampling.BILINEAR)
    if fault == "cut":
        return image.crop((5, 5, SIDE_PX - 5, SIDE_PX - 5))
    if fault == "negative":
        return ImageOps.invert(image)
    if fault == "quarter":
        return image.transpose(Image.Transpose.ROTATE_90)
    if fault == "text":
        ImageDraw.Draw(image).text((10, 5), "DOE JOHN 1970", fill=255, font=ImageFont.load_default(10))
    return image


def write_audited(folder: Path) -> list[dict[str, Any]]:
    """Write the pictures and a table of them (``t.csv``), and return its rows."""
    rows = []

    def add(name: str, image: Image.Image, number: int, **cells: str) -> None:
        image.save(folder / name, **({"quality": 60} if name.endswith("jpg") else {}))
        known = {
            "path": name,
            "patient_id": f"p{number}",
            "study_id": f"s{name}",
            "split": "valid" if number % 5 == 4 else "train",
            "anatomy": "bar" if number % 2 == 0 else "ring",
            "finding": "yes" if number % 3 == 0 else "no",
        }
        rows.append(known | cells)

    for number in range(2 * PATIENTS):
        add(f"i{number}.png", film(number), number)
    for fault, number in PLANTED.items():
        ending = "jpg" if fault == "jpeg" else "png"
        # A film of its own where the fault is no copy.
        source = film(number if fault in {"copy", "jpeg", "resized", "turned", "cut"} else 1000 + number)
        add(f"{fault}.{ending}", _faulty(fault, source), number, patient_id=f"of-{fault}", split="valid")
    add("blank.png", Image.new("L", (90, 60), 99), 100)
    add("stranger.png", film(201), 101, anatomy="bar")
    add("again.png", film(300), 16, split="valid")
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def make_audited_store(folder: Path) -> Path:
    """Return the store of `write_audited`."""
    write_audited(folder)
    table = ["--dataset", "table", "--root", str(folder / "t.csv"), "--label", "finding"]
    assert run(["extract", *table, "--store", str(folder / "s.store"), "--encoder", "hog"]) == 0
    return folder / "s.store"


def grey(image: Image.Image, side_px: int) -> npt.NDArray[np.uint8]:
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BOX))
