"""Everything of this project that needs a GPU, in at most eight minutes, most valuable first.

python benchmarks/on_gpu.py                              the first CUDA device; without one, as with --small
python benchmarks/on_gpu.py --small                      everything tiny on the CPU, to see that it works
python benchmarks/on_gpu.py --sections towers,sweep      some of it
python benchmarks/on_gpu.py --render FILE --into docs/benchmarks.md

Each finished row is on the disk before the next measurement begins: a run that is cut has what it has. Each section
is a process of its own with its own time, so that one that hangs or loses the device takes no other with it (a small
run, which has no device to lose, has two processes).
Weights are random, in the true shape of MedSigLIP-448 and of MedGemma's tower at 896 px; nothing is downloaded.

Ends with 1 if a test or a section failed. A promise that is not kept is a result, not a failure.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gpu_checks.page import put_into, tables
from gpu_checks.rows import CPU, Row, RowFile, read_rows
from table import machine

RESULTS = Path(__file__).parent / "results"
MINUTES = 8.0


@dataclass(frozen=True)
class Section:
    """One part of the run.

    Parameters
    ----------
    name
        For ``--sections``.
    module
        Of `gpu_checks`; its ``measure(plan)`` writes the rows.
    least_s
        It is skipped when less time is left.
    most_s
        It is stopped after this.
    """

    name: str
    module: str
    least_s: float
    most_s: float


# Most valuable first: do the vectors come out right, are the promises kept, what would make them faster.
SECTIONS = (
    Section("tests", "suite", 20, 100),
    Section("towers", "towers", 25, 60),
    Section("end-to-end", "end_to_end", 45, 110),
    Section("heads", "head_fits", 25, 90),
    Section("fine-tune", "fine_tune", 25, 70),
    Section("sweep", "sweep", 20, 180),
    Section("fp8", "fp8", 20, 90),
)


def main() -> None:
    """Run, or render what was run."""
    options = _options()
    if options.render:
        render(options.render, options.into)
        return
    if options.child:
        _measure_here(options)
        return
    raise SystemExit(run(options))


def run(options: Namespace) -> int:
    """Run the sections one after the other and return the exit code."""
    import torch
    from gpu_checks.plan import device_name

    ends = time.monotonic() + 60 * options.minutes
    device = torch.device("cpu" if options.small or not torch.cuda.is_available() else "cuda:0")
    small, name = device.type == "cpu", device_name(device)
    file = RowFile(options.out or RESULTS / f"on_gpu-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl")
    file.path.parent.mkdir(parents=True, exist_ok=True)
    if file.path.exists():
        raise SystemExit(f"--out must be a new file; {file.path} is there")
    print(f"rows go to {file.path}", file=sys.stderr)
    file.append({"section": "machine", "device": name, "what": _machine(device), "small": small})
    started, code = time.monotonic(), 0
    for sections in _together(_chosen(options.sections), small=small):
        what, left = ",".join(section.name for section in sections), ends - time.monotonic()
        least_s, most_s = sections[0].least_s, sections[0].most_s
        if left < least_s:
            file.append(_of_run(name, what, f"skipped: needs {least_s:.0f} s, {left:.0f} s are left"))
            continue
        failure = _run_apart(what, file, left if small else min(left, most_s), small=small)
        if failure:
            file.append(_of_run(name, what, failure))
            code = 1 if failure.startswith("failed") else code
    if any(row["section"] == "tests" and row["failed"] for row in file.read()):
        code = 1
    seconds = time.monotonic() - started
    file.append(
        {"section": "run", "device": name, "what": "whole run", "seconds": seconds, "note": "finished"}
    )
    return code


def render(path: Path, page: Path | None) -> None:
    """Print the tables of a run on a GPU, or put them into a page; a run on a CPU is refused."""
    try:
        text = tables(read_rows(path))
        if page:
            put_into(page, text)
        else:
            print(text)
    except ValueError as error:
        raise SystemExit(f"--render {path}: {error}") from error


def _options() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="everything tiny, on the CPU")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for all of it  [{MINUTES:g}]")
    parser.add_argument("--sections", help=f"comma-separated  [{','.join(one.name for one in SECTIONS)}]")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="a new file of JSON lines  [benchmarks/results/on_gpu-TIME.jsonl]",
    )
    parser.add_argument("--render", type=Path, metavar="FILE", help="print a file's rows as Markdown and end")
    parser.add_argument(
        "--into", type=Path, metavar="PAGE", help="with --render: put them into this page instead"
    )
    parser.add_argument("--child", help="run these sections here (used by the script itself)")
    parser.add_argument("--limit", type=float, help="seconds for them")
    return parser.parse_args()


def _chosen(names: str | None) -> list[Section]:
    known = {section.name: section for section in SECTIONS}
    wanted = names.split(",") if names else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"--sections must be of {', '.join(known)}; found {', '.join(unknown)}")
    return [section for section in SECTIONS if section.name in wanted]


def _together(sections: list[Section], *, small: bool) -> list[list[Section]]:
    """Return what shares a process: nothing, but in a small run most of its time would go into starting them."""
    apart = [section for section in sections if section.name == "tests" or not small]
    others = [section for section in sections if section not in apart]
    return [[section] for section in apart] + ([others] if others else [])


def _of_run(device: str, what: str, note: str) -> Row:
    return {"section": "run", "device": device, "what": what, "note": note}


def _machine(device: object) -> str:
    import torch

    words = [f"torch {torch.__version__}", machine()]
    if getattr(device, "type", CPU) == "cuda":
        card = torch.cuda.get_device_properties(0)
        capability = f"compute capability {card.major}.{card.minor}"
        words = [capability, f"{card.total_memory / 1e9:.0f} GB", f"CUDA {torch.version.cuda}", *words]
    return ", ".join(words)


def _run_apart(names: str, file: RowFile, limit_s: float, *, small: bool) -> str:
    """Run sections in a process group of their own, and return how they failed, or nothing."""
    command = [sys.executable, __file__, "--child", names, "--limit", str(limit_s), "--out", str(file.path)]
    # A small run says 'cpu' in every row, so that nothing in it may find a card.
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if small else {}
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command + ["--small"] * small,
            stdin=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **hidden},
            start_new_session=True,
        )
        try:
            code = child.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return f"cut after {limit_s:.3g} s"
        finally:
            _end(child)
            errors.seek(0)
            text = errors.read()
            if child.returncode:
                print(text, file=sys.stderr)
        lines = [line for line in text.splitlines() if line.strip()]
        return f"failed with {code}: {lines[-1] if lines else 'no message'}" if code else ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of a section: it, its decoders and its tests."""
    with suppress(ProcessLookupError):  # all of them are gone
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin:
        child.stdin.close()


def _measure_here(options: Namespace) -> None:
    """Measure in this process; what is written here was asked for by `_run_apart`."""
    ends = time.monotonic() + options.limit
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch
    from gpu_checks.plan import Plan

    device = torch.device("cpu" if options.small else "cuda:0")
    plan = Plan(device=device, small=options.small, ends=ends, rows=RowFile(options.out))
    for section in _chosen(options.child):
        importlib.import_module(f"gpu_checks.{section.module}").measure(plan)


def _end_with_parent() -> None:
    """Wait until the pipe from the parent closes, as it does however the parent ends, and end this group."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
