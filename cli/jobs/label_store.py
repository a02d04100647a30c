"""From a table of labels to a task of a store: what ``embed label`` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.notify import Notify, ignore
from cli.project import shown
from embedstore.datasets.label_table import read_label_table
from embedstore.errors import CorruptStore, DataError
from embedstore.files import StrPath
from embedstore.keys.key_file import read_key
from embedstore.queries.clinical_ids import ClinicalIds, hint_of_keys
from embedstore.queries.manifest_columns import require_columns, unit_names
from embedstore.store.reader import Store, open_store
from embedstore.store.tasks import LABEL, read_task, task_names, task_source, write_task
from embedstore.store.writer import open_writer
from embedstore.task import Task, unit_in_words, unit_key


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """A table and what its task is to be; see `embedstore.datasets.label_table.read_label_table`.

    `by` says which clinical id the table has, and `key_file` turns it into the store's own; see
    `embedstore.queries.clinical_ids.ClinicalIds.rows`.
    """

    table: Path
    name: str
    unit: str = "study"
    targets: Sequence[str] = ()
    classes: Sequence[str] = ()
    positive: str | None = None
    ordered: bool = False
    separator: str | None = None
    uncertain: str | None = None
    empty: str = "missing"
    missing: Sequence[str] = ()
    as_written: Sequence[str] = ()
    by: str | None = None
    key_file: StrPath | None = None


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What was written: the task, how many of its units are in the store, and what was read as what."""

    task: Task
    in_store: int
    facts: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, int]:
        """Target -> how many units have a label."""
        table = self.task.labels
        return {name: table.num_rows - table.column(name).null_count for name in self.task.targets}


def label_store(store: StrPath, job: LabelJob, *, notify: Notify = ignore) -> Labelled:
    """Write a table's labels as a task of a store, and tell `notify` which task that replaces.

    Raises
    ------
    DataError
        If no unit of the table is in the store, or as `read_label_table`.
    EmbedError
        As `open_store` and `open_writer`.
    """
    opened = open_store(store)
    unit = unit_in_words(unit_key(job.unit))
    known = _known_units(opened, unit) if unit == "study" else set()
    clinical = ClinicalIds(opened, None if job.key_file is None else read_key(job.key_file))
    task, facts = read_label_table(
        job.table,
        name=job.name,
        unit=unit,
        targets=job.targets,
        classes=job.classes,
        positive=job.positive,
        ordered=job.ordered,
        separator=job.separator,
        uncertain=job.uncertain,
        empty=job.empty,
        known=known,
        missing=job.missing,
        as_written=job.as_written,
        prepare=lambda rows: clinical.rows(rows, unit=unit, by=job.by, targets=job.targets),
    )
    in_store = _count_known(opened, task, job, notify)
    with open_writer(opened.path, opened.identity, say=notify):
        if task.name in task_names(opened.path):
            notify(_replaced(opened, task.name))
        write_task(opened.path, task, source=LABEL)
    return Labelled(task=task, in_store=in_store, facts=facts)


def _replaced(store: Store, name: str) -> str:
    """Return one line on the task that is about to be replaced."""
    origin = "`embed label` wrote" if task_source(store.path, name) == LABEL else _brought_by(store)
    try:
        held = read_task(store.path, name)
    except CorruptStore:
        return f"replaces task {name} (damaged), which {origin}"
    counts = Counter(label for target in held.targets for label in held.labels.column(target).to_pylist())
    listed = ", ".join(f"{counts[label]:,} {label}" for label in held.classes)
    return f"replaces task {name} ({listed}), which {origin}"


def _brought_by(store: Store) -> str:
    names = ", ".join(dict.fromkeys(part.plan.dataset for part in store.parts))
    return f"the data set {names} brings" if names else "the data set brings"


def _known_units(store: Store, unit: str) -> set[str]:
    require_columns([store], unit_key(unit))
    return set(unit_names(store.table, unit).tolist()) - {""} if store.parts else set()


def _count_known(store: Store, task: Task, job: LabelJob, notify: Notify) -> int:
    """Return how many of the task's units are in the store; some must be, and strangers are said."""
    table = job.table
    known = _known_units(store, task.unit)
    ids = task.unit_ids
    strangers = [unit_id for unit_id in ids if unit_id not in known]
    if len(strangers) == len(ids):
        raise DataError(
            f"{table}: none of its {len(ids):,} {task.unit} ids is in store {store.path}; "
            f"the store's look like {sorted(known)[:1]}{hint_of_keys(store, job.key_file)}"
        )
    if strangers:
        notify(
            f"{table}: {len(strangers):,} of {len(ids):,} {task.unit} ids are not in store {shown(store.path)}: "
            f"{strangers[0]!r}, for example; the store's look like {min(known)!r}"
        )
    return len(ids) - len(strangers)
