"""Judging a fine-tuned encoder: its own store, a probe without the patients that taught it, and a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.finetuning.predicted import Predicted, predicted_of
from cli.jobs.open_probe import ProbeJob
from cli.jobs.probe_store import probe_store
from cli.jobs.report_runs import compare_runs
from embedstore.datasets.base import Collection
from embedstore.encoders.checkpoint_encoders import FinetunedEncoder
from embedstore.encoders.registry import image_encoder
from embedstore.errors import UsageError
from embedstore.extraction.extract import extract
from embedstore.extraction.options import ExtractOptions
from embedstore.extraction.progress import Observer
from embedstore.queries.image_files import root_of
from embedstore.store.reader import Store, open_store
from embedstore.store.tasks import read_task
from heads.comparing.comparison_table import ComparisonTable
from heads.protocol.options import ProbeOptions
from heads.runs.run import Run

if TYPE_CHECKING:
    from finetune.job import FineTuned, FineTuning


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What came of it.

    Parameters
    ----------
    store
        The encoder's own store.
    before, after
        The run on the stores that were there, and the one on the new store.
    table
        Both, paired on the units that both evaluated: those of patients whom the encoder has never seen.
    page
        The comparison as a page.
    predicted
        What `embed escalate` had said of it; None where nobody asked.
    """

    store: Path
    before: Run
    after: Run
    table: ComparisonTable
    page: Path
    predicted: Predicted | None


def require_judgeable(job: FineTuning) -> None:
    """Refuse, before anything is trained, stores that cannot be extracted again from what they know.

    Raises
    ------
    UsageError
        If their paths are hidden, or they are of crops.
    """
    for path in job.stores:
        store = open_store(Path(path))
        if store.identity.crop is not None or any(part.plan.hides_paths for part in store.parts):
            raise UsageError(
                f"`then_probe` needs stores of whole images whose paths are known; {path} is not. Extract its data "
                "set with the new encoder as it was extracted before"
            )


def judge(job: FineTuning, tuned: FineTuned, *, head: str, runs: Path, say: Callable[[str], None]) -> Judged:
    """Extract with the encoder, probe the new store and the ones before, and compare.

    Parameters
    ----------
    job, tuned
        The training and what came of it.
    head
        Of both probes.
    runs
        Folder of the runs.
    say
        Takes lines for people.

    Raises
    ------
    EmbedError
        As an extraction and a probe.
    """
    folder = Path(tuned.folder)
    place = folder.with_name(f"{folder.name}.store")
    encoder = image_encoder(str(folder), device=job.device)
    assert isinstance(encoder, FinetunedEncoder)
    for path in job.stores:
        store = open_store(Path(path))
        for collection in _collections(store):
            options = ExtractOptions(workers=max(job.workers, 1), store_dtype=str(store.dtype))
            extract(collection, place, encoder, options=options, observer=Observer(say=say))
    asked = ProbeOptions(head=head, targets=tuple(job.targets))
    before = _probed(
        ProbeJob(stores=job.stores, task=job.task, options=asked), f"{folder.name}-before", runs, say
    )
    after = _probed(
        ProbeJob(stores=[place], task=job.task, options=asked, trained_patients="leave-out"),
        folder.name,
        runs,
        say,
    )
    page = folder / "comparison.html"
    table = compare_runs([before.folder, after.folder], out=page, notify=say)
    predicted = None
    if before.identity.weights_sha256 == encoder.folder.base["weights_sha256"]:
        predicted = predicted_of(table, before.identity.sha256, [runs])
    else:
        say(
            f"the stores before are of {before.identity.encoder}, and what was trained is "
            f"{encoder.folder.base['encoder']}: the comparison is of two encoders, not of one before and after"
        )
    return Judged(store=place, before=before, after=after, table=table, page=page, predicted=predicted)


def _probed(job: ProbeJob, name: str, runs: Path, say: Callable[[str], None]) -> Run:
    return probe_store(replace(job, out=runs / name, runs=runs), notify=say)


def _collections(store: Store) -> list[Collection]:
    """Return the data sets of a store as its parts know them, with its tasks."""
    tasks = tuple(read_task(store.path, name) for name in store.tasks)
    return [Collection(part.plan.dataset, root_of(store, part), part.manifest, tasks) for part in store.parts]
