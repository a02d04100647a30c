"""What `embed escalate` says of simulated tasks, beside what fine-tuning then brings on fresh patients.

Each task draws pictures (`simulated_textures`), embeds them with a tiny tower of random weights, probes, asks whether
to fine-tune, and then fine-tunes whatever the answer was. Gains are those of the goal's metric on the fresh patients,
paired, beside the gain that was predicted before. ``--curve`` compares what learning curves promised with what more
patients brought.

Examples
--------
python benchmarks/escalation.py
python benchmarks/escalation.py --only direction --method lora
python benchmarks/escalation.py --curve
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from simulated_textures import Texture, write_pictures, write_tiny_tower

import embedstore as es
import heads
from embedstore.view import take_units
from finetune.escalation.base_encoder import trainable_base
from finetune.escalation.escalation import Escalation, escalate
from finetune.escalation.goal import parse_goal
from finetune.fine_tuning import fine_tune
from finetune.job import FineTuning
from finetune.pictures.augment import NONE as NO_AUGMENTATION
from finetune.recipe import LoraRecipe, Recipe
from heads.estimators.logistic import LogisticFamily
from heads.protocol.splits import with_trained_units
from heads.runs.run import Run
from heads.statistics.bootstrap import Difference, paired_difference
from heads.statistics.evaluation import draw_metrics

FRESH = 400
DRAWS = 1000
# A tower with random weights has more to learn than a trained one: faster than the recipe's own rates.
LR = 2e-3
LORA_LR = 5e-3
EPOCHS = 30
# A few strengths, far apart: a curve is sixteen fits, and vectors have 48 numbers.
GRID = LogisticFamily(strengths=(1e-3, 1e-2, 0.1, 1.0, 10.0), normalisations=("standardise",))
# Below this the share of what was lacking is noise.
_LEAST_HEADROOM = 0.02
_QUANTILES = (0.1, 0.5, 0.9)
# The first is that of the goals.
METRICS_OF_SHARES = ("auroc", "kappa", "log_loss")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the table: a texture, how many patients are learned from, the goal, and another encoder to ask."""

    texture: Texture
    patients: int = 300
    goal: str = "auroc>=0.9"
    seed: int = 0
    other: str = ""

    @property
    def drawn(self) -> tuple[Texture, int, int]:
        """What decides its pictures."""
        return self.texture, self.patients, self.seed

    @property
    def name(self) -> str:
        """What it is called in the table."""
        wrong = (
            "labels of nothing"
            if self.texture.wrong_share == 0.5
            else f"{self.texture.wrong_share:.0%} wrong"
        )
        parts = [self.texture.kind, f"x {self.texture.strength:g}"] + (
            [wrong] if self.texture.wrong_share else []
        )
        return " ".join(parts + ([f"({self.other} beside)"] if self.other else []))


TASKS = (
    Task(texture=Texture(kind="brightness", strength=1.0)),
    Task(texture=Texture(kind="brightness", strength=0.5), seed=1),
    Task(texture=Texture(kind="brightness", strength=0.25), seed=2),
    Task(texture=Texture(kind="spot", strength=1.0), seed=3),
    Task(texture=Texture(kind="spot", strength=0.7), seed=4),
    Task(texture=Texture(kind="spot", strength=1.5), seed=5, goal="auroc>=0.99"),
    Task(texture=Texture(kind="direction", strength=1.0), seed=6),
    Task(texture=Texture(kind="direction", strength=0.8), seed=7),
    Task(texture=Texture(kind="direction", strength=0.6), seed=8),
    Task(texture=Texture(kind="direction", strength=0.4), seed=9),
    Task(texture=Texture(kind="direction", strength=1.0), patients=150, seed=10),
    Task(texture=Texture(kind="direction", strength=1.0), patients=600, seed=11),
    Task(texture=Texture(kind="fineness", strength=1.5), seed=12),
    Task(texture=Texture(kind="fineness", strength=1.0), seed=13),
    Task(texture=Texture(kind="fineness", strength=0.7), seed=14),
    Task(texture=Texture(kind="fineness", strength=1.0), patients=600, seed=15),
    Task(texture=Texture(kind="direction", strength=1.0), goal="auroc>=0.75", seed=6),
    Task(texture=Texture(kind="pattern", strength=2.0), patients=150, goal="auroc>=0.8", seed=16),
    Task(texture=Texture(kind="spot", strength=1.0), patients=150, goal="auroc>=0.88", seed=17),
    Task(texture=Texture(kind="pattern", strength=0.3), patients=600, seed=18),
    Task(texture=Texture(kind="direction", strength=0.6), seed=8, other="hog"),
    Task(texture=Texture(kind="fineness", strength=0.7), seed=14, other="hog"),
    Task(texture=Texture(kind="direction", strength=1.0, wrong_share=0.5), seed=19),
    Task(texture=Texture(kind="brightness", strength=1.0, wrong_share=0.5), seed=20),
    Task(texture=Texture(kind="fineness", strength=1.0, wrong_share=0.5), patients=600, seed=21),
    Task(texture=Texture(kind="brightness", strength=1.0, wrong_share=0.2), seed=22),
    Task(texture=Texture(kind="brightness", strength=1.0, wrong_share=0.15), patients=600, seed=23),
    Task(texture=Texture(kind="direction", strength=1.0, wrong_share=0.1), seed=24),
    Task(texture=Texture(kind="spot", strength=1.0, wrong_share=0.1), seed=25),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of a task; `reached` has by metric the frozen and the fine-tuned value."""

    task: Task
    answer: Escalation
    method: str
    reached: Mapping[str, tuple[float, float]]
    obtained: Difference
    seconds: float

    def share(self, metric: str) -> float:
        """Share of what the probe lacked that was gained; NaN where it lacked nothing, or was at chance."""
        gain = self.answer.gain
        if gain is None or gain.headroom < _LEAST_HEADROOM:
            return float("nan")
        frozen, tuned = self.reached[metric]
        if metric == self.answer.evidence.goal.metric:
            return (tuned - frozen) / gain.headroom
        return (frozen - tuned) / frozen if metric == "log_loss" else (tuned - frozen) / (1 - frozen)


def probed(store: Path, folder: Path, *, curve: bool = False) -> Run:
    """Probe a store of pictures with the logistic head, and save the run.

    A fine-tuned encoder has seen the training patients; the fresh ones, by whom the run is judged, it has not.
    """
    options = heads.ProbeOptions(head="logistic", draws=DRAWS, learning_curve=curve)
    view = with_trained_units(es.load_view(es.open_store(store), "finding"), "use")
    return heads.save_run(folder, heads.probe(view, options, family=GRID))


def embedded(table: Path, store: Path, encoder: Path | str) -> Path:
    """Embed the pictures of a table."""
    collection = es.read_dataset("table", table, options={"label": "finding"})
    es.extract(collection, store, es.image_encoder(str(encoder), device="cpu", dtype="float32"))
    return store


def fine_tuned(store: Path, out: Path, tower: Path, *, method: str, seed: int) -> Path:
    """Fine-tune the tower on the training patients of a store, and return its folder."""
    lora = method == "lora"
    recipe = Recipe(
        method=method,
        blocks=None if lora else 2,
        lora=LoraRecipe() if lora else None,
        lr=LORA_LR if lora else LR,
        epochs=EPOCHS,
        patience=EPOCHS,
        layer_decay=1.0,
        head_widths=(),
        # Stripes that are turned are another class.
        augmentation=NO_AUGMENTATION,
        seed=seed,
    )
    job = FineTuning(
        stores=[store], out=out, task="finding", encoder=str(tower), recipe=recipe, device="cpu", workers=0
    )
    return fine_tune(job).folder


def run_task(task: Task, folder: Path, tower: Path, *, method: str | None) -> Row:
    """Draw, embed, probe, ask, fine-tune, embed and probe again."""
    started = time.perf_counter()
    table = write_pictures(folder, task.texture, learned=task.patients, fresh=FRESH, seed=100 + task.seed)
    store = embedded(table, folder / "frozen.store", tower)
    run = probed(store, folder / "frozen", curve=True)
    others = []
    if task.other:
        others = [probed(embedded(table, folder / "other.store", task.other), folder / "other")]
    goal = parse_goal(task.goal)
    answer = escalate(run, goal, others, base=trainable_base(run.identity, str(tower)), stores=[str(store)])
    assert answer.recommendation is not None
    chosen = method or answer.recommendation.method
    tuned = fine_tuned(store, folder / "tuned", tower, method=chosen, seed=task.seed)
    after = probed(embedded(table, folder / "tuned.store", tuned), folder / "after")
    tuned, frozen = (
        draw_metrics(each.evaluated.scored(draws=DRAWS, seed=0), METRICS_OF_SHARES) for each in (after, run)
    )
    name = goal.metric
    return Row(
        task=task,
        answer=answer,
        method=chosen,
        reached={metric: (frozen[metric].value, tuned[metric].value) for metric in METRICS_OF_SHARES},
        obtained=paired_difference(
            (tuned[name].value, frozen[name].value), (tuned[name].drawn, frozen[name].drawn), n=tuned[name].n
        ),
        seconds=time.perf_counter() - started,
    )


def print_rows(rows: Sequence[Row]) -> None:
    """Print the table, each gain as predicted from the shares of the other tasks, and the shares of all."""
    print("| task | patients | goal | frozen | says | predicted gain | by | obtained gain |")
    print("|---|---|---|---|---|---|---|---|")
    held = predicted = 0
    for row in rows:
        value, gain = row.answer.evidence.value, row.answer.gain
        words = "none: at chance"
        if gain is not None:
            low, middle, high = shares_of([other for other in rows if other.task.drawn != row.task.drawn])
            ends = [share * gain.headroom for share in (low, middle, high)]
            words = f"{ends[1]:.3f} [{ends[0]:.3f}, {ends[2]:.3f}]"
            if gain.headroom >= _LEAST_HEADROOM:
                predicted += 1
                held += ends[0] <= row.obtained.estimate.value <= ends[2]
        print(
            f"| {row.task.name} | {row.task.patients} | {row.task.goal} | {value.value:.3f} | {row.answer.decision} | "
            f"{words} | {row.method} | {in_words(row.obtained)} |"
        )
    print(
        f"\n{held} of {predicted} obtained gains lie between the ends that were predicted from the other tasks"
    )
    print("shares of what was lacking, lowest tenth, median, highest tenth:")
    for metric in METRICS_OF_SHARES:
        low, middle, high = shares_of(rows, metric)
        print(f"  {metric} {low:.2f}, {middle:.2f}, {high:.2f}")
    print(f"{sum(row.seconds for row in rows) / max(len(rows), 1):.0f} s a task")


def shares_of(rows: Sequence[Row], metric: str = METRICS_OF_SHARES[0]) -> tuple[float, float, float]:
    """Return the lowest tenth, the median and the highest tenth of the shares, 0 at least; same pictures count once."""
    found = {row.task.drawn: row.share(metric) for row in rows}
    shares = [share for share in found.values() if np.isfinite(share)]
    low, middle, high = np.maximum(np.quantile(shares, _QUANTILES), 0) if shares else (np.nan,) * 3
    return float(low), float(middle), float(high)


def in_words(difference: Difference) -> str:
    """Return a difference with its interval."""
    found = difference.estimate
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def print_curves(folder: Path, tower: Path) -> None:
    """Print what learning curves promised for 2 and 4 times the patients, and what these brought."""
    print("| task | patients | times | promised gain | obtained gain | inside |")
    print("|---|---|---|---|---|---|")
    inside = []
    for number, texture in enumerate(CURVE_TEXTURES):
        most = 4 * max(CURVE_PATIENTS)
        table = write_pictures(folder / f"{number}", texture, learned=most, fresh=FRESH, seed=500 + number)
        view = es.load_view(es.open_store(embedded(table, folder / f"{number}.store", tower)), "finding")
        for patients in CURVE_PATIENTS:
            for promised, gained, times in promises_of(view, patients, most):
                inside.append(promised.low <= gained <= promised.high)
                print(
                    f"| {texture.kind} x {texture.strength:g} | {patients} | {times} | {promised.value:+.3f} "
                    f"[{promised.low:+.3f}, {promised.high:+.3f}] | {gained:+.3f} | {'yes' if inside[-1] else 'no'} |",
                    flush=True,
                )
    print(f"\n{sum(inside)} of {len(inside)} inside")


def promises_of(view: es.View, patients: int, most: int) -> Iterator[tuple[heads.Estimate, float, int]]:
    """Yield for 2 and 4 times the patients the gain that the curve promises, what they bring, and the times."""
    row_of_patient = np.array([int(name.removeprefix("patient")) for name in view.patients])
    options = heads.ProbeOptions(head="logistic", draws=DRAWS, learning_curve=True)
    found = {}
    for times in (1, 2, 4):
        taken = take_units(view, (row_of_patient >= most) | (row_of_patient < times * patients))
        asked = options if times == 1 else replace(options, learning_curve=False)
        found[times] = heads.probe(taken, asked, family=GRID)
    curve = found[1].learning_curve
    assert curve is not None
    for beyond in curve.extrapolated:
        later, now = (found[times].evaluation.overall["auroc"].value for times in (beyond.times, 1))
        yield beyond.gains["auroc"], later - now, beyond.times


CURVE_PATIENTS = (150, 300)
CURVE_TEXTURES = (
    Texture(kind="direction", strength=1.0),
    Texture(kind="fineness", strength=1.5),
    Texture(kind="pattern", strength=2.0),
    Texture(kind="spot", strength=1.0),
    Texture(kind="brightness", strength=0.1),
)


def main() -> None:
    """Run what was asked for and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="Tasks of this kind of texture.")
    parser.add_argument("--method", choices=("unfreeze", "lora"), help="In place of the recommended one.")
    parser.add_argument(
        "--curve", action="store_true", help="What learning curves promised, and no fine-tuning."
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tower = write_tiny_tower(folder / "tower")
        if asked.curve:
            print_curves(folder, tower)
            return
        rows = []
        for number, task in enumerate(TASKS):
            if asked.only in (None, task.texture.kind):
                rows.append(run_task(task, folder / f"task-{number}", tower, method=asked.method))
                print(
                    f"{task.name}: {rows[-1].answer.decision}, {in_words(rows[-1].obtained)}", file=sys.stderr
                )
        print_rows(rows)


if __name__ == "__main__":
    main()
