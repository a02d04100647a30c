"""What the whole lumbar way is worth on phantoms: levels, crops around them, and whole slices, on equal folds.

Draws the studies, extracts them with ``hog``, localises out of fold and looks again in crops around these levels, cuts
crops around the localised and the true levels, probes each way, and prints the localiser's errors and each way's score
beside crops of localised levels, paired on the same draws of patients. With ``--folder`` what is finished is kept.
Numbers are of drawings, not of patients.

Examples
--------
python benchmarks/lumbar_phantoms.py
python benchmarks/lumbar_phantoms.py --head knn --without-attention --folder phantoms
python benchmarks/lumbar_phantoms.py --off-centre-mm 20
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from table import parse, show

from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.phantoms.lumbar import FOLDER, write_phantom_lumbar
from embedstore.queries.load_view import load_views
from embedstore.store.reader import open_store
from embedstore.view import without_split
from heads.comparing.ways_table import Reference
from heads.folds import assign_folds
from heads.inputs.leakage import leakage_groups
from heads.lumbar.rsna_score import SCORE, draw_run_score
from heads.lumbar.severity_results import draw_severity
from heads.runs.run_files import load_run
from heads.statistics.bootstrap import draw_patients, paired_difference
from heads.statistics.evaluation import Drawn, Scored

TASK = "lumbar-severity"
OURS = "crops-localised"
PRIOR = "prevalence x (1, 2, 4)"


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=150)
    parser.add_argument(
        "--off-centre-mm", type=float, default=0.0, help="as `write_phantom_lumbar(off_centre_mm=)`"
    )
    parser.add_argument("--head", default="logistic", help="of binned slices and of crops  [logistic]")
    parser.add_argument(
        "--without-attention", action="store_true", help="leave out attention over whole slices"
    )
    parser.add_argument(
        "--one-look", action="store_true", help="cut crops around the levels of the first look"
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="kept; a temporary one by default")
    options = parse(parser)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        seconds = make(folder, options)
        levels = json.loads((folder / _levels(options) / "localiser.json").read_text())
        show(f"levels of {options.studies} phantom studies, out of fold", level_rows(levels), json_path=None)
        names = levels["names"]
        print(
            f"all five names wrong in {names['wrong']} of {names['judged']} studies, {names['wrong_and_unsure']} of "
            f"these unsure; {names['unsure']} unsure in all"
        )
        show(
            f"ways on {options.studies} phantom studies, {options.folds} folds",
            way_rows(folder, options),
            json_path=options.json,
        )
        print(", ".join(f"{step} {of_step:.0f} s" for step, of_step in seconds.items()))


def make(folder: Path, options: Namespace) -> dict[str, float]:
    """Run every step that has not been run, each as a command of its own; return the seconds of each."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / FOLDER / "sample_submission.csv").is_file():  # what is written last
        write_phantom_lumbar(folder, studies=options.studies, off_centre_mm=options.off_centre_mm)
    data = f"--dataset rsna-lumbar --root {FOLDER} --encoder hog"
    probe = f"probe --task {TASK} --store lumbar.store --folds {options.folds} --draws {options.draws}"
    steps = {
        "slices and tokens": f"extract {data} --tokens 64 --store lumbar.store",
        "levels": "localise --store lumbar.store --out runs/levels",
        "crops to look at": f"extract {data} --crops runs/levels --crop-neighbours 0 --tokens 64 --store near.store",
        "second look": "localise --store lumbar.store --near near.store --out runs/levels-near",
        "crops": f"extract {data} --crops {_levels(options)} --store crops.store",
        "oracle crops": f"extract {data} --crops oracle --store oracle.store",
        "probes": f"{probe} --crops crops.store --crops oracle.store --head {options.head} --ways slices-binned,crops",
        "attention": f"{probe} --head attention --ways slices-attention",
    }
    if options.without_attention:
        del steps["attention"]
    if options.one_look:
        del steps["crops to look at"], steps["second look"]
    for step, run in (("levels", "runs/levels"), ("second look", "runs/levels-near")):
        if (folder / run / "levels.parquet").is_file():
            steps.pop(step, None)
    seconds = {}
    for step, words in steps.items():
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "embedstore", *words.split()],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds[step] = time.perf_counter() - started
    return seconds


def _levels(options: Namespace) -> str:
    return "runs/levels" if options.one_look else "runs/levels-near"


def level_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the localiser's errors, with intervals by patient."""
    return [
        {
            "points": group + label,
            "n": metrics["median_mm"]["n"],
            "median mm": _text(metrics["median_mm"], 1),
            "95th mm": _text(metrics["p95_mm"], 1),
            "level right": _text(metrics["level_accuracy"]),
            "all five right": _text(metrics.get("all_levels_right")),
        }
        for row, label in (
            ("localised", ""),
            ("first_look", ", first look"),
            ("mean_position", ", mean position"),
        )
        for group, metrics in document["errors"].get(row, {}).items()
    ]


def way_rows(folder: Path, options: Namespace) -> list[dict[str, Any]]:
    """Return each way's score and foraminal kappa, and its score less that of localised crops."""
    view = without_split(load_views([open_store(folder / "lumbar.store")], TASK))
    folds = assign_folds(view.y, leakage_groups(view), folds=options.folds, n_classes=len(CLASSES), seed=0)
    reference = Reference.of_view(view, folds)
    draws = draw_patients(reference.patients, draws=options.draws, seed=0)
    answers = {PRIOR: reference.prior()}
    for run in sorted((folder / "runs").glob(f"{TASK}-*/run.json")):
        way = run.parent.name.removeprefix(f"{TASK}-")
        answers[way] = reference.answers_of(load_run(run.parent))
    drawn: dict[str, dict[str, Drawn]] = {}
    for way, of_way in answers.items():
        scored = Scored(of_way.y, of_way.probabilities, draws)
        kappa = draw_severity(scored, TARGETS, columns=("condition",))["condition"]["foraminal"]["kappa"]
        drawn[way] = {**draw_run_score(scored, TARGETS), "foraminal kappa": kappa}
    ours = next(name for name in drawn if name.startswith(OURS))
    return [
        {
            "way": way,
            "score": _text(found[SCORE].estimate().to_json()),
            "less localised crops": "" if way == ours else _difference(found[SCORE], drawn[ours][SCORE]),
            "foraminal kappa": _text(found["foraminal kappa"].estimate().to_json()),
            "cells by prevalence": answers[way].filled,
        }
        for way, found in sorted(drawn.items(), key=lambda entry: entry[1][SCORE].value)
    ]


def _difference(one: Drawn, other: Drawn) -> str:
    found = paired_difference((one.value, other.value), (one.drawn, other.drawn), n=one.n)
    return _text(found.estimate.to_json())


def _text(entry: Mapping[str, Any] | None, decimals: int = 3) -> str:
    if entry is None:
        return ""
    value, low, high = (
        "-" if entry[name] is None else f"{entry[name]:.{decimals}f}" for name in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
