"""Files, folders or a store in, answers out: calibrated probabilities with the nearest labelled cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cli.jobs.metadata_values import require_metadata, require_wanted, with_metadata
from cli.jobs.notify import Notify, ignore
from cli.project import shown
from embedstore.encoders.registry import encoder_of_identity
from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.keys.key_file import read_key
from embedstore.manifest import path_from_manifest
from embedstore.pipeline.embed_images import embed_records
from embedstore.queries.image_files import hidden_images
from embedstore.queries.lacking_units import lacking_units
from embedstore.queries.load_view import load_units
from embedstore.queries.nearest_cases import nearest_cases
from embedstore.queries.user_files import gather_inputs
from embedstore.store.layout import StoreLayout
from embedstore.store.reader import Store, open_store
from embedstore.store.tasks import read_task, task_names
from embedstore.task import UNIT_WORDS, unit_key, units_in_words
from embedstore.view import Units
from heads.runs.answers import predict_units
from heads.runs.run import Run, load_run

NEAREST = 3


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How inputs are answered.

    Parameters
    ----------
    threshold, prevalence
        As `heads.runs.answers.predict_units`.
    metadata
        Column -> value of all inputs, where the run was fitted with metadata; a store brings its own.
    neighbors
        Nearest labelled cases of each unit; by default `NEAREST` for files and none for a store, of which every
        image would be searched for.
    cases
        Store to look for cases in; none by default.
    cases_must_fit
        Whether a store of another kind is an error, or is left out of account.
    encoder
        Folder or hub id of the run's encoder; its registered name by default.
    device
        Device of the encoder.
    key_file
        Key of a store of cases whose paths are hidden: an image that it holds too is known by its place, and its
        patient's cases are left out.
    """

    threshold: str = "half"
    prevalence: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    neighbors: int | None = None
    cases: StrPath | None = None
    cases_must_fit: bool = True
    encoder: str | None = None
    device: str = "auto"
    key_file: StrPath | None = None


@dataclass(frozen=True, kw_only=True)
class InputAnswers:
    """What was answered.

    Parameters
    ----------
    units
        One answer a unit, as `heads.runs.answers.predict_units`; with cases also ``neighbors``, as
        `embedstore.queries.nearest_cases.nearest_cases`.
    failed
        One line for each image that gave no vector: its path, reason and message.
    """

    units: Sequence[dict[str, Any]]
    failed: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """Units to answer for, the files without a vector, image id -> path, and the store that they are of."""

    units: Units
    failed: Sequence[str] = ()
    paths: Mapping[str, Path] = field(default_factory=dict)
    store: Store | None = None


def predict_inputs(
    run_folder: StrPath,
    inputs: Sequence[StrPath],
    options: PredictOptions | None = None,
    *,
    notify: Notify = ignore,
) -> InputAnswers:
    """Answer for images, study folders or one store.

    Parameters
    ----------
    run_folder
        The run of a probe.
    inputs
        Images and folders (the images directly in one folder are one study), or one store.
    options
        How; the defaults where None.
    notify
        Takes what a person should know: units without an answer, values that the head never saw.

    Raises
    ------
    UsageError
        If metadata is missing or not wanted, files cannot say what the run's task needs to know of each image, or a
        threshold, prevalence or store cannot be used.
    DataError
        If an input does not exist or holds no image.
    IdentityMismatch
        If a store holds other vectors than those of the run.
    """
    asked = PredictOptions() if options is None else options
    run = load_run(Path(run_folder))
    require_wanted(run, asked.metadata)
    places = [Path(path) for path in inputs]
    if len(places) == 1 and StoreLayout(places[0]).store_file.is_file():
        loaded = _load_store(run, places[0], asked, notify)
    else:
        # Before the encoder is loaded and the images are decoded.
        _require_files_suffice(run)
        require_metadata(run, list(asked.metadata), what="images bring none")
        loaded = _load_files(run, places, asked, notify)
    units = with_metadata(run, loaded.units, asked.metadata, notify=notify)
    if not len(units.unit_ids):
        return InputAnswers(units=[], failed=loaded.failed)
    answers = predict_units(
        run,
        units.X,
        units.unit_of_image,
        units.unit_ids.tolist(),
        threshold=asked.threshold,
        prevalence=asked.prevalence,
        metadata=units.metadata,
        content_sha256=units.content_sha256,
        image_of_target=units.image_of_target,
    )
    cases = _nearest(run, loaded, asked)
    if cases is not None:
        for answer, nearest in zip(answers, cases, strict=True):
            answer["neighbors"] = nearest
    return InputAnswers(units=answers, failed=loaded.failed)


def _load_store(run: Run, path: Path, asked: PredictOptions, notify: Notify) -> _Loaded:
    store = open_store(path)
    run.require_identity(store.identity)
    wanted = run.predictor.blocks.columns if run.predictor.blocks else ()
    held = [column for column in wanted if column in store.table.column_names]
    for column in held:
        if column in asked.metadata:
            raise UsageError(
                f"--with {column}={asked.metadata[column]}: store {path} has the column {column} itself"
            )
    require_metadata(run, [*held, *asked.metadata], what=f"store {path} has no such column")
    unit = run.document["task"]["unit"]
    _tell_lacking(store, unit, notify)
    return _Loaded(units=load_units(store, unit, with_columns=held, image_rules=run.image_rules), store=store)


def _tell_lacking(store: Store, unit: str, notify: Notify) -> None:
    """Say which units of the store get no answer, or one from a part of their images."""
    lacking = lacking_units(store, unit)
    images = [(lacking.pending, "pending"), (lacking.failed, "failed")]
    counted = " and ".join(
        f"{count:,} image{'' if count == 1 else 's'} {state}" for count, state in images if count
    )
    if not counted:
        return
    units = units_in_words(unit)
    partial = f", {lacking.partial:,} an answer without some of their images" if lacking.partial else ""
    advice = "; run `embed extract`" if lacking.pending else ""
    notify(f"{shown(store.path)}: {counted}: {lacking.absent:,} {units} get no answer{partial}{advice}")


def _require_files_suffice(run: Run) -> None:
    """Refuse files where the run needs columns of a manifest to tell units, or the images of a target, apart."""
    columns = {column for column in unit_key(run.document["task"]["unit"]) if column not in UNIT_WORDS}
    columns |= {rule.column for rule in run.image_rules if rule is not None}
    if columns:
        raise UsageError(
            f"run {run.folder} needs the columns {', '.join(sorted(columns))} of every image, which files do not "
            "bring; extract them into a store with these columns and give the store as INPUT"
        )


def _load_files(run: Run, inputs: Sequence[Path], asked: PredictOptions, notify: Notify) -> _Loaded:
    encoder = encoder_of_identity(
        run.identity, holder=f"run {run.folder}", name=asked.encoder, device=asked.device, say=notify
    )
    gathered = gather_inputs(inputs)
    embedded = embed_records(gathered.records, gathered.root, encoder)
    for line in embedded.lines_of_notes():
        notify(line)
    failed = [
        f"{gathered.records[row].path}: {reason}: {message}"
        for row, (reason, message) in embedded.failures.items()
    ]
    kept = [row for row in range(len(gathered.records)) if row not in embedded.failures]
    image_ids = [gathered.records[row].image_id for row in kept]
    of_studies = run.document["task"]["unit"] == "study"
    names = [gathered.studies[row] for row in kept] if of_studies else image_ids
    number = {name: position for position, name in enumerate(dict.fromkeys(names))}
    units = Units(
        X=embedded.vectors[kept],
        image_ids=np.array(image_ids, dtype=np.str_),
        content_sha256=embedded.content_sha256[kept],
        unit_of_image=np.array([number[name] for name in names], dtype=np.int64),
        unit_ids=np.array(list(number), dtype=np.str_),
    )
    paths = {
        gathered.records[row].image_id: path_from_manifest(gathered.root, gathered.records[row].path)
        for row in kept
    }
    return _Loaded(units=units, failed=failed, paths=paths)


def _nearest(run: Run, loaded: _Loaded, asked: PredictOptions) -> list[list[dict[str, Any]]] | None:
    """Return the nearest labelled cases of each unit; None where none are asked for or there is no store."""
    usual = NEAREST if loaded.store is None else 0
    count = usual if asked.neighbors is None else asked.neighbors
    store = _store_of_cases(run, loaded.store, asked) if count else None
    if store is None:
        return None
    task = read_task(store.path, run.document["task"]["name"])
    key = read_key(asked.key_file) if asked.key_file is not None and hidden_images(store) else None
    return nearest_cases(store, task, loaded.units, loaded.paths, count=count, key=key)


def _store_of_cases(run: Run, held: Store | None, asked: PredictOptions) -> Store | None:
    """Return the store to look for cases in, opened once; None where there is none, or none that fits."""
    if asked.cases is None:
        return None
    path, must_fit = Path(asked.cases), asked.cases_must_fit
    if not must_fit and not StoreLayout(path).store_file.is_file():
        return None
    is_held = held is not None and held.path.resolve() == path.resolve()
    store = held if held is not None and is_held else open_store(path)
    if not must_fit and store.identity.sha256 != run.identity.sha256:
        return None
    run.require_identity(store.identity)
    name = run.document["task"]["name"]
    if name not in task_names(store.path):
        if must_fit:
            raise UsageError(f"--store: {path} has no task {name!r}, so no labelled cases")
        return None
    return store
