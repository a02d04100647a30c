"""What `embed audit` finds of planted faults, and what it takes for faults.

python benchmarks/audit.py                  300 patients of phantom MURA, 12 faults of each kind; about 5 minutes
python benchmarks/audit.py --rows 147218    what as many rows take beside decoding: synthetic vectors and small pictures

Faults are put beside the images that they are made of, as images of new patients: an audit may use no name. A false
cluster is one of near duplicates that holds pictures of different origins. Phantoms are born inverted or turned now and
then; of those the table says how many are found besides the planted ones.
"""

from __future__ import annotations

import csv
import os
import resource
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage
from table import parse, show

from cli.main import run
from embedstore.audit.audit_store import AuditOptions, audit_store
from embedstore.audit.audited_rows import AuditedRows
from embedstore.audit.findings import Audit
from embedstore.audit.misplaced import outliers, strangers
from embedstore.audit.near_copies import alike_pairs, near_candidates
from embedstore.audit.picture_faults import turned_and_negative
from embedstore.audit.pictures import GIST_PX, Pictures
from embedstore.audit.registration import SIDE_PX, Detail, likeness, moved_likeness
from embedstore.phantoms.mura import write_phantom_mura

SWAPPED = "patient in both splits"
COPIES = ("copied", "jpeg 75", "jpeg 40", "half the size", "turned 3 degrees", "cut 5 %")
ALONE = {
    "negative": "inverted",
    "turned 90 degrees": "rotated",
    "blank": "blank",
    "text": "burned-in-text",
    "another anatomy": "another-cluster",
}


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--faults", type=int, default=12, help="of each kind")
    parser.add_argument("--encoder", default="hog")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--rows", type=int, help="time so many synthetic rows instead")
    arguments = parse(parser)
    if arguments.rows:
        title = f"an audit of {arguments.rows:,} images, beside decoding"
        show(title, timed(arguments.rows, arguments.seed), json_path=arguments.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rows = planted(Path(folder), arguments.patients, arguments.faults, arguments.seed)
        table = ["--dataset", "table", "--root", "t.csv", "--encoder", arguments.encoder]
        if run(["extract", *table, "--store", "s.store"]):
            raise SystemExit("the extraction failed")
        for pictures in (True, False):
            started = time.perf_counter()
            audit = audit_store("s.store", AuditOptions(pictures=pictures, workers=os.cpu_count() or 1))
            seconds = time.perf_counter() - started
            said = "pixels and vectors" if pictures else "vectors alone"
            fixed = ", ".join(f"{name} {number:.4f}" for name, number in audit.thresholds.items())
            title = f"{said}, {arguments.encoder}: {audit.images:,} images in {seconds:.0f} s; {fixed}"
            show(
                title, results(audit, rows, pictures=pictures), json_path=arguments.json if pictures else None
            )


def timed(count: int, seed: int) -> list[dict[str, object]]:
    """Return the seconds of each step, and the peak of memory after it; rows are slices, 25 of a patient."""
    generator = np.random.default_rng(seed)
    patients = [f"p{number // 25}" for number in range(count)]
    names = [f"i{number}" for number in range(count)]
    planes = generator.choice(["axial", "sagittal"], count)
    columns = {"image_id": names, "patient_id": patients, "study_id": patients, "plane": planes}
    spread = np.arange(1, 1153) ** -0.5
    vectors = np.empty((count, 1152), np.float16)
    for start in range(0, count, 4096):
        vectors[start : start + 4096] = generator.normal(size=vectors[start : start + 4096].shape) * spread
    rows = AuditedRows(pa.table(columns), vectors, np.arange(count))
    gists = ndimage.gaussian_filter(
        generator.normal(size=(count, GIST_PX, GIST_PX)).astype(np.float32), (0, 2, 2)
    )
    pictures = Pictures(
        rows=np.arange(count),
        range_grey=np.full(count, 200.0),
        gists=255 * (gists - gists.min()) / np.ptp(gists),
        letters=np.zeros(count, np.int64),
    )
    grain = generator.integers(0, 256, (2, SIDE_PX, SIDE_PX), dtype=np.uint8)
    one, other = Detail(grain[0], 0.8), Detail(grain[1], 0.8)
    kinds = planes.astype(np.str_)
    steps: dict[str, Callable[[], object]] = {
        "nearest of other patients": lambda: rows.nearest_others,
        "nearest of anybody": lambda: rows.nearest,
        "pairs that are near": lambda: near_candidates(rows),
        "among another kind, outliers": lambda: (strangers(rows), outliers(rows)),
        "pairs that look alike when small": lambda: alike_pairs(pictures, rows.content),
        "negatives and turned": lambda: turned_and_negative(pictures, names, kinds, rows.patients),
        "likeness of 1,000 pairs": lambda: [likeness(one, other) for _ in range(1000)],
        "likeness of 1,000 pairs, moved": lambda: [moved_likeness(one, other) for _ in range(1000)],
    }
    table = []
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        seconds = time.perf_counter() - started
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        table.append({"step": name, "seconds": seconds, "peak so far (MB)": peak_mb})
    return table


def planted(root: Path, patients: int, count: int, seed: int) -> list[dict[str, str]]:
    """Write phantoms and faults and a table of them, and return its rows."""
    write_phantom_mura(root, patients=patients, seed=seed)
    rows = []
    for file in sorted(root.glob("MURA-v1.1/*/XR_*/patient*/study*/image*.png")):
        name, (_, split, anatomy, patient, study, _) = (
            str(file.relative_to(root)),
            file.relative_to(root).parts,
        )
        own = {"path": name, "image_id": name, "patient_id": patient, "study_id": f"{patient}/{study}"}
        rows.append(own | {"split": split, "anatomy": anatomy, "fault": "", "source": name})
    rng = np.random.default_rng(seed)
    drawn = iter(rng.permutation(len(rows)).tolist())
    faults = [(fault, next(drawn)) for fault in (*COPIES, *ALONE) for _ in range(count)]
    for number, (fault, place) in enumerate(faults):
        source = rows[place]
        name = f"fault{number}.{'jpg' if fault.startswith('jpeg') else 'png'}"
        quality = {"quality": int(fault.split()[1])} if fault.startswith("jpeg") else {}
        FAULTS[fault](Image.open(root / source["path"]).convert("L"), rng).save(root / name, **quality)
        new = {"path": name, "image_id": name, "patient_id": f"new{number}", "study_id": f"new{number}"}
        rows.append(source | new | {"fault": fault})
        if fault == "another anatomy":
            others = sorted({row["anatomy"] for row in rows} - {source["anatomy"]})
            rows[-1]["anatomy"] = others[number % len(others)]
            # No copy of it may stay that says otherwise.
            source["fault"] = "gone"
        if fault not in COPIES:
            source["fault"] = "gone"
    kept = [row for row in rows if row["fault"] != "gone"]
    images = Counter(row["patient_id"] for row in kept if not row["fault"])
    seen: set[str] = set()
    for row in kept:
        patient = row["patient_id"]
        if len(seen) < count and images[patient] > 1 and patient not in seen and row["split"] == "train":
            seen.add(patient)
            row["split"], row["fault"] = "valid", SWAPPED
    with (root / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in kept[0] if name not in ("fault", "source")])
        writer.writeheader()
        writer.writerows(
            {name: cell for name, cell in row.items() if name in writer.fieldnames} for row in kept
        )
    return kept


def _with_text(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
    font = ImageFont.load_default(max(12, image.height // 40))
    ImageDraw.Draw(image).text(
        (image.width // 20, image.height // 20), "DOE^JANE 1970-03-12", fill=255, font=font
    )
    return image


def _cut(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
    wide, high = image.width * 0.025, image.height * 0.025
    return image.crop((int(wide), int(high), int(image.width - wide), int(image.height - high)))


FAULTS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "copied": lambda image, _rng: image,
    "jpeg 75": lambda image, _rng: image,
    "jpeg 40": lambda image, _rng: image,
    "half the size": lambda image, _rng: image.resize(
        (image.width // 2, image.height // 2), Image.Resampling.BILINEAR
    ),
    "turned 3 degrees": lambda image, _rng: image.rotate(3, Image.Resampling.BILINEAR),
    "cut 5 %": _cut,
    "negative": lambda image, _rng: ImageOps.invert(image),
    "turned 90 degrees": lambda image, _rng: image.transpose(Image.Transpose.ROTATE_90),
    "blank": lambda image, rng: Image.new("L", image.size, int(rng.integers(0, 256))),
    "text": _with_text,
    "another anatomy": lambda image, _rng: image,
}


def results(audit: Audit, rows: list[dict[str, str]], *, pictures: bool) -> list[dict[str, object]]:
    """Return a row for each fault: planted, found, and what else was taken for it."""
    origin = {row["image_id"]: row["source"] for row in rows}
    clusters = [
        set(found.image_ids)
        for kind in ("identical-pixels", "near-duplicates")
        for found in audit.of_kind(kind)
    ]
    false = sum(len({origin[name] for name in cluster}) > 1 for cluster in clusters)
    table: list[dict[str, object]] = []

    def add(fault: str, kind: str, hits: int, others: object) -> None:
        count = sum(row["fault"] == fault for row in rows)
        row = {
            "fault": fault,
            "found as": kind,
            "planted": count,
            "found": hits,
            "recall": round(hits / count, 3),
        }
        table.append(row | {"others of this kind": others})

    for fault in COPIES:
        own = [row for row in rows if row["fault"] == fault]
        hits = sum(any({row["image_id"], row["source"]} <= cluster for cluster in clusters) for row in own)
        per_thousand = f"{false} false clusters, {1000 * false / audit.images:.2f} in 1,000"
        add(fault, "identical-pixels" if fault == "copied" else "near-duplicates", hits, per_thousand)
    crossing = {name for found in audit.of_kind("patients-across-splits") for name in found.image_ids}
    swapped = {row["patient_id"] for row in rows if row["fault"] == SWAPPED}
    patients = {row["patient_id"] for row in rows if row["image_id"] in crossing}
    add(SWAPPED, "patients-across-splits", len(swapped & patients), len(patients - swapped))
    for fault, kind in ALONE.items():
        if not pictures and kind not in ("blank", "another-cluster"):
            continue
        own = {row["image_id"] for row in rows if row["fault"] == fault}
        found = {name for finding in audit.of_kind(kind) for name in finding.image_ids}
        add(fault, kind, len(own & found), len(found - own))
    return table


if __name__ == "__main__":
    main()
