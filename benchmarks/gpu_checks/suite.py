"""The project's own tests that need a GPU, in a process of their own."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from gpu_checks.plan import Plan

ROOT = Path(__file__).parents[2]
MARK = "mark.gpu"
_OUTCOME = re.compile(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)(?: |$)", re.MULTILINE)
_SHOWN = 5
_LAST_WORDS_S = 2


def measure(plan: Plan) -> None:
    """Write one row: how many tests passed, failed and were skipped, and the names of the first that failed."""
    files = [
        str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py")) if _marked(path)
    ]
    if plan.small:
        files = files[:1]  # all are skipped without a GPU; one shows that they are found
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-v",
        "--color=no",
        "-p",
        "no:cacheprovider",
        *files,
    ]
    started = time.perf_counter()
    limit_s = max(1.0, plan.left_s() - _LAST_WORDS_S)
    with tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=limit_s, check=False
            ).returncode
            note = "" if code in (0, 1) else f"pytest ended with exit code {code}"
        except subprocess.TimeoutExpired:
            note = f"cut after {limit_s:.0f} s"
        output.seek(0)
        report = output.read()
    counts, failed = outcomes(report)
    if note or failed:
        print(report, file=sys.stderr)
    plan.write(
        "tests",
        what=f"pytest -m gpu ({len(files)} files)",
        passed=counts["PASSED"],
        failed=counts["FAILED"] + counts["ERROR"],
        skipped=counts["SKIPPED"],
        seconds=time.perf_counter() - started,
        note="; ".join(filter(None, [note, *failed[:_SHOWN]])),
    )


def outcomes(report: str) -> tuple[Counter[str], list[str]]:
    """Count the outcomes in what ``pytest -v`` printed, whole or cut, and name the tests that failed."""
    found = _OUTCOME.findall(report)
    failed = [name for name, outcome in found if outcome in ("FAILED", "ERROR")]
    return Counter(outcome for _, outcome in found), failed


def _marked(path: Path) -> bool:
    return MARK in path.read_text(encoding="utf-8")
