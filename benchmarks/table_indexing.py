"""How long the table reader takes for a table of a million rows, and how much memory.

Two tables name the same small PNG files, three of a study: `plain` needs no rule; `every rule` is written as other
programs write tables (semicolons, Windows-1252, blanks, NA, 53.0 for 53, YES beside yes, studies numbered within their
patient) and its paths have backslashes and the folder's own name in front. Each is read in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from embedstore.datasets.table import Table

ROWS, PROMISE_S, PROMISE_GB = 1_000_000, 20.0, 1.5
_STUDIES_OF_PATIENT, _IMAGES_OF_STUDY = 2, 3
_PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010800000000") + b"\0" * 100


def write_tables(root: Path, rows: int) -> tuple[Path, Path]:
    """Write the files and both tables; return the plain one and that of every rule."""
    plain = ["path,patient_id,study_id,split,finding,age,site"]
    ruled = [";path;Patient ID;study_id;Split;finding;age;site"]
    for row in range(rows):
        study, image = divmod(row, _IMAGES_OF_STUDY)
        patient, number = divmod(study, _STUDIES_OF_PATIENT)
        folder = f"train/patient{patient:06d}/study{number + 1}"
        if image == 0:
            (root / folder).mkdir(parents=True)
        (root / folder / f"view{image}.png").write_bytes(_PNG)
        label = ("no", "yes")[study % 2]
        plain.append(f"{folder}/view{image}.png,{patient},{patient}-{number},train,{label},{row % 90},Bern")
        path = f"images/{folder}/view{image}.png".replace("/", "\\")
        spelled = "NA" if row % 7 == 0 else (label.upper() if row % 5 == 0 else label)
        ruled.append(
            f"{row};{path};{patient}.0;study{number + 1};Training;{spelled} ;{row % 90},5;Z\u00fcrich"
        )
    tables = root / "plain.csv", root / "ruled.csv"
    tables[0].write_text("\n".join(plain) + "\n")
    tables[1].write_text("\r\n".join(ruled) + "\r\n", encoding="cp1252")
    return tables


def measure(table: Path) -> None:
    """Read a table and print seconds, the process's largest memory, and the summary, as JSON."""
    start, start_cpu = time.perf_counter(), time.process_time()
    collection = Table(label=["finding"]).read(table)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    facts = {
        "rows": len(collection.manifest),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_gb": peak_gb,
    }
    print(json.dumps(facts | {"summary": dict(collection.summary)}))


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of each table ({ROWS:,})")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        measure(options.read)
        return
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for kind, table in zip(("plain", "every rule"), write_tables(Path(name), options.rows), strict=True):
            command = [sys.executable, __file__, "--read", str(table)]
            found[kind] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(
        f"{'table':<12} {'rows':>10} {'seconds':>8} {'promise':>8} {'CPU s':>8} {'peak GB':>8} {'promise':>8}"
    )
    for kind, facts in found.items():
        time_taken = f"{facts['seconds']:>8.1f} {PROMISE_S:>8.0f} {facts['cpu_seconds']:>8.1f}"
        memory = f"{facts['peak_gb']:>8.2f} {PROMISE_GB:>8.1f}"
        print(f"{kind:<12} {facts['rows']:>10,} {time_taken} {memory}")
    for subject, words in found["every rule"]["summary"].items():
        print(f"  {subject}: {words}")
    if options.json:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        options.json.write_text(json.dumps(machine | {"tables": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
