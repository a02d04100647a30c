"""`embed search` from the shell, from nothing to an answer, and what takes the time.

python benchmarks/search_cold.py             a store of 60 phantom patients with `hog`; a minute

Every line is a process of its own, the median of some; files are in the page cache, as after a first search.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

from table import parse, show

from embedstore.phantoms.mura import write_phantom_mura

PROMISE_S = 2.0


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--times", type=int, default=5)
    arguments = parse(parser)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_phantom_mura(folder, patients=arguments.patients)
        embed("extract", "--dataset", "mura", "--root", "MURA-v1.1", "--store", "mura.store")
        image = min(Path("MURA-v1.1").glob("valid/*/*/*/image1.png"))
        search = ["search", "--store", "mura.store", "-k", "5"]
        steps = {
            "Python alone": ["-c", "pass"],
            "NumPy and Arrow": ["-c", "import numpy, pyarrow.compute"],
            "torch, which the encoder computes with": ["-c", "import torch"],
            "the command and all that it imports": ["-c", "import cli.exploring.search"],
            "embed --help": ["-m", "embedstore", "--help"],
            "embed search --id": ["-m", "embedstore", *search, "--id", str(image.relative_to("MURA-v1.1"))],
            "embed search FILE": ["-m", "embedstore", *search, str(image)],
        }
        rows: list[dict[str, object]] = [
            {"what": what, "seconds": seconds(words, arguments.times)} for what, words in steps.items()
        ]
    show("embed search, cold", rows, json_path=arguments.json)
    took = float(str(rows[-1]["seconds"]))
    print(
        f"embed search FILE: {took:.2f} s, promised {PROMISE_S} s: {'kept' if took <= PROMISE_S else 'NOT KEPT'}"
    )


def seconds(words: list[str], times: int) -> float:
    """Return the median time of a process."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def embed(*arguments: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(
        [sys.executable, "-m", "embedstore", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
