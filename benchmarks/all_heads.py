"""Time whole probes with every head at the size of a data set, and the memory that they take.

Each head runs in a process of its own. The peak is that of the probe beyond what was there before (interpreter,
libraries and vectors), plus the vectors, in multiples of the vectors in float32.

python benchmarks/all_heads.py                                                        MURA: 36,808 x 1152
python benchmarks/all_heads.py --heads logistic --rows 147218 --patients 1975 --targets 25 --classes 3
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from table import parse, show

HEADS = "logistic,mlp,xgboost,knn,attention"


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--heads", default=HEADS, help=f"comma-separated  [{HEADS}]")
    parser.add_argument("--rows", type=int, default=36_808, help="training images")
    parser.add_argument("--dim", type=int, default=1152)
    parser.add_argument("--patients", type=int, default=11_184, help="training patients")
    parser.add_argument("--targets", type=int, default=1)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument(
        "--final", default="auto", help="as `embed probe --final`: auto, refit or ensemble  [auto]"
    )
    parser.add_argument("--one", help="run this head here and print JSON (used by the script itself)")
    options = parse(parser)
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    rows = [_apart(head, sys.argv[1:]) for head in options.heads.split(",")]
    title = f"{options.rows:,} x {options.dim}, {options.targets} targets of {options.classes} classes"
    show(title, rows, json_path=options.json)


def measure(head: str, options: Namespace) -> dict[str, Any]:
    """Probe with one head and return its row of the table."""
    from synthetic import synthetic_view

    from heads.protocol.options import ProbeOptions
    from heads.protocol.probe import probe
    from heads.registry import head_family

    view = synthetic_view(
        options.rows, options.dim, options.patients, 0, targets=options.targets, classes=options.classes
    )
    family = head_family(head)
    # Libraries are loaded where they are first needed; that is no memory of the data's.
    probe(synthetic_view(600, 16, 200, 0), ProbeOptions(head=head, draws=2))
    before = _status_mb("VmRSS")
    # Linux: forget the peak of making the vectors.
    Path("/proc/self/clear_refs").write_text("5")
    started, used = time.perf_counter(), time.process_time()
    result = probe(view, ProbeOptions(head=head, final=options.final), family=family)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    vectors_mb = view.X.nbytes / 1e6
    return {
        "head": head,
        "seconds": seconds,
        "of processor": used,
        "fit": result.seconds["fit"],
        "outliers": result.seconds["outliers"],
        "predict": result.seconds["predict"],
        "2,000 draws": result.seconds["evaluate"],
        "peak (MB)": _status_mb("VmHWM") - before + vectors_mb,
        "of the vectors": (_status_mb("VmHWM") - before + vectors_mb) / vectors_mb,
        "log loss": result.evaluation.overall["log_loss"].value,
    }


def _apart(head: str, arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments, "--one", head]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


if __name__ == "__main__":
    main()
