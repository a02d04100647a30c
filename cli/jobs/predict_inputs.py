"""Files, folders or a store in, answers out: calibrated probabilities with the nearest labelled cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cli.jobs.answer_units import Answerer, FileAnswers, StoreAnswers
from cli.jobs.metadata_values import require_metadata, require_wanted, with_metadata
from cli.notify import Notify, ignore
from cli.project import shown
from cli.studying.find_localiser import crop_rule_of, levels_of, localiser_of_run, slices_of
from cli.studying.openings import Openings
from cli.studying.predict_options import NEAREST, PredictOptions
from embedstore.crops.weightings import DESCRIPTION
from embedstore.datasets.base import DatasetReader, columns_of_headers, dataset_reader
from embedstore.errors import EmbedError, UsageError
from embedstore.files import StrPath
from embedstore.inputs.file_units import FileUnits, WantedUnits, units_of_files
from embedstore.inputs.input_rows import InputSources
from embedstore.inputs.study_crops import HEADER_COLUMNS, LookAgain, StudyCrops, crops_of_files
from embedstore.inputs.unit_chunks import FileUnitsChunk
from embedstore.inputs.user_files import find_files
from embedstore.keys.key_file import read_key
from embedstore.queries.clinical_ids import ClinicalIds
from embedstore.queries.conditions import parse_conditions
from embedstore.queries.derived_columns import KIND, can_say
from embedstore.queries.load_view import load_units
from embedstore.queries.manifest_columns import lacking_units
from embedstore.queries.nearest_cases import LabelledCases
from embedstore.store.layout import StoreLayout
from embedstore.store.reader import Store
from embedstore.store.tasks import task_names
from embedstore.task import counted_units
from embedstore.view import PLACE
from heads.localising.localiser import Localiser
from heads.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class AnswerBatch:
    """Some answers.

    Parameters
    ----------
    units
        One answer a unit, as `heads.runs.answers.predict_units`; with cases also ``neighbors``, as
        `embedstore.queries.nearest_cases.LabelledCases.nearest`.
    failed
        One line for each image that gave no vector: its path, reason and message.
    images
        Images that are done with it.
    chunk
        Of files, the units with their vectors; None of a store.
    """

    units: Sequence[dict[str, Any]]
    failed: Sequence[str] = ()
    images: int = 0
    chunk: FileUnitsChunk | None = None


@dataclass(frozen=True, kw_only=True)
class InputAnswers:
    """What was answered, as `AnswerBatch`."""

    units: Sequence[dict[str, Any]]
    failed: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Inputs that were looked at, to be answered batch by batch.

    Parameters
    ----------
    images
        Images to decode; 0 for a store, whose vectors are there.
    units
        Units to answer for.
    batches
        Answers for whole units at a time. Takes what is asked between batches of images, where true ends it, and who
        is told at the end what a person should know.
    """

    images: int
    units: int
    batches: Callable[[Callable[[], bool], Notify], Iterator[AnswerBatch]]


def predict_inputs(
    run_folder: StrPath,
    inputs: Sequence[StrPath],
    options: PredictOptions | None = None,
    *,
    notify: Notify = ignore,
) -> InputAnswers:
    """Answer for images, study folders or one store, all at once; as `open_answers`."""
    answering = open_answers(run_folder, inputs, options, notify=notify)
    batches = list(answering.batches(lambda: False, notify))
    return InputAnswers(
        units=[answer for batch in batches for answer in batch.units],
        failed=[line for batch in batches for line in batch.failed],
    )


def open_answers(
    run_folder: StrPath,
    inputs: Sequence[StrPath],
    options: PredictOptions | None = None,
    *,
    notify: Notify = ignore,
    openings: Openings | None = None,
) -> Answering:
    """Look at images, folders or one store, and prepare to answer for them.

    Parameters
    ----------
    run_folder
        The run of a probe.
    inputs
        Images and folders, or one store; none where `PredictOptions.ids` names units of `PredictOptions.cases`. One
        study is answered once, in however many folders it lies (`embedstore.inputs.input_rows`).
    options
        How; the defaults where None.
    notify
        Takes what a person should know: units without an answer or with a part of their images, values that the head
        never saw.
    openings
        Opens runs, stores and encoders; each anew where None.

    Raises
    ------
    UsageError
        If metadata is missing or not wanted, files cannot say what the run's task needs to know of each image, or a
        threshold, prevalence or store cannot be used.
    DataError
        If an input does not exist or holds no image, or the store has no such unit.
    IdentityMismatch
        If a store holds other vectors than those of the run.
    """
    asked = PredictOptions() if options is None else options
    opened = Openings() if openings is None else openings
    run = opened.run(Path(run_folder))
    require_wanted(run, asked.metadata)
    places = [Path(path) for path in inputs]
    if not places:
        places = [_store_of_ids(asked)]
    if len(places) == 1 and StoreLayout(places[0]).store_file.is_file():
        return _open_store(run, places[0], asked, notify, opened)
    if asked.ids or asked.where:
        raise UsageError(
            "`where` and ids choose among the rows of a store; leave them out for files, or give the store"
        )
    return _open_files(run, places, asked, notify, opened)


def _store_of_ids(asked: PredictOptions) -> Path:
    if asked.cases is None or not (asked.ids or asked.where):
        raise UsageError("give images, study folders or a store; --id and --where choose units of --store")
    if not StoreLayout(Path(asked.cases)).store_file.is_file():
        raise UsageError(f"--store: {asked.cases} is no store, so it has no unit to answer for")
    return Path(asked.cases)


def _open_store(run: Run, path: Path, asked: PredictOptions, notify: Notify, opened: Openings) -> Answering:
    store = opened.store(path)
    run.require_identity(store.identity)
    held = [column for column in run.predictor.columns if can_say(column, store.table.column_names)]
    for column in held:
        if column in asked.metadata:
            raise UsageError(
                f"--with {column}={asked.metadata[column]}: store {path} has the column {column} itself"
            )
    require_metadata(run, [*held, *asked.metadata], what=f"store {path} has no such column")
    unit = run.document["task"]["unit"]
    if not asked.ids:
        _tell_lacking(store, unit, notify)
    clinical = ClinicalIds(store, None if asked.key_file is None else read_key(asked.key_file))
    units = load_units(
        store,
        unit,
        with_columns=held,
        image_rules=run.image_rules,
        ids=clinical.unit_ids(asked.ids, asked.by),
        where=clinical.where(parse_conditions(asked.where)),
    )
    units = with_metadata(run, units, asked.metadata, notify=notify)
    answers = StoreAnswers(
        answerer=_answerer(run, store, asked, 0, opened, held=store), store=store, units=units
    )

    def batches(_stopping: Callable[[], bool], tell: Notify) -> Iterator[AnswerBatch]:
        yield AnswerBatch(units=answers.answer(tell))

    return Answering(images=0, units=len(units.unit_ids), batches=batches)


def _tell_lacking(store: Store, unit: str, notify: Notify) -> None:
    """Say which units of the store get no answer, or one from a part of their images."""
    lacking = lacking_units(store, unit)
    images = [(lacking.pending, "pending"), (lacking.failed, "failed")]
    counted = " and ".join(
        f"{count:,} image{'' if count == 1 else 's'} {state}" for count, state in images if count
    )
    if not counted:
        return
    partial = f", {lacking.partial:,} answered without some of their images" if lacking.partial else ""
    advice = "; run `embed extract`" if lacking.pending else ""
    without = f"{counted_units(lacking.absent, unit)} without an answer"
    notify(f"{shown(store.path)}: {counted}: {without}{partial}{advice}")


def _open_files(
    run: Run, inputs: Sequence[Path], asked: PredictOptions, notify: Notify, opened: Openings
) -> Answering:
    found = find_files(inputs)
    if found.again:
        notify(f"{found.again:,} file{'s are' if found.again > 1 else ' is'} given twice; each is taken once")
    store = _known_store(run, asked, opened)
    wanted = WantedUnits(
        unit=run.document["task"]["unit"],
        image_rules=run.image_rules,
        columns=run.predictor.columns,
        holder=f"run {run.folder}",
    )
    sources = _sources(run, store, asked)
    localiser = _localiser(run, asked)
    files: FileUnits | StudyCrops
    if localiser is None:
        files = units_of_files(found.files, sources, wanted)
    else:
        second = localiser.second
        again = None if second is None else LookAgain(rule=second.rule, refine=second.refine)
        rule, held = crop_rule_of(run), levels_of(localiser)
        places = [asked.project.folder, *([] if store is None else [store.path.absolute().parent])]
        files = crops_of_files(
            found.files,
            sources,
            wanted,
            rule,
            localiser.locate,
            again=again,
            found=held,
            slices=slices_of(localiser, places, opened),
        )
    if sources.key is not None and asked.with_paths:
        notify(
            "ids are keyed, and answers name their files beside them (path), in folders that may be named after "
            "patients; --no-paths leaves them out"
        )
    brought = [column for column in wanted.columns if can_say(column, files.columns)]
    require_metadata(run, [*brought, *asked.metadata], what="these files do not bring it")
    files = replace(
        files, wanted=replace(wanted, columns=[name for name in brought if name not in asked.metadata])
    )
    # Named only now: whatever is wrong with the inputs is said before the weights are loaded.
    encoder = opened.encoder(
        run.identity if localiser is None else localiser.identity,
        holder=f"run {run.folder}" if localiser is None else f"localiser {localiser.folder}",
        name=asked.encoder,
        device=asked.device,
        say=notify,
    )
    answers = FileAnswers(
        answerer=_answerer(run, store, asked, NEAREST, opened),
        files=files,
        metadata=asked.metadata,
        encoder=encoder,
        workers=asked.workers,
    )

    def batches(stopping: Callable[[], bool], tell: Notify) -> Iterator[AnswerBatch]:
        for units, failed, chunk in answers.answer(stopping, tell):
            yield AnswerBatch(units=units, failed=failed, images=chunk.images, chunk=chunk)

    return Answering(images=files.images, units=len(files.units), batches=batches)


def _localiser(run: Run, asked: PredictOptions) -> Localiser | None:
    """Return what finds the levels around which the run's images are cut; None where these are whole."""
    if run.identity.crop is None:
        if asked.levels is not None:
            raise UsageError(
                f"run {run.folder} is of whole images, which need no levels; leave `levels={asked.levels}` out"
            )
        return None
    return localiser_of_run(run, named=asked.levels, places=asked.level_places)


def _sources(run: Run, store: Store | None, asked: PredictOptions) -> InputSources:
    """Return who may know files: the store, and the readers of the project's and the run's data sets."""
    project = asked.project
    readers: dict[str, DatasetReader] = {}
    if project.dataset is not None:
        readers[project.dataset] = dataset_reader(project.dataset, project.options)
    learned = {source["dataset"] for source in run.document.get("sources", [])}
    for name in sorted(learned - set(readers)):
        try:
            readers[name] = dataset_reader(name)
        except EmbedError:
            # Its package is not installed here, or it wants options: files are then known by what they say themselves.
            continue
    of_run = [columns_of_headers(readers[name]) if name in readers else frozenset() for name in learned]
    of_headers = frozenset.intersection(*of_run) if of_run else frozenset()
    of_data = project.options.get("key_file")
    named = asked.key_file or (of_data if of_data and Path(of_data).is_file() else None)
    key = None if named is None else read_key(named)
    return InputSources(
        store=store,
        readers=tuple(readers.values()),
        root=project.root,
        key=key,
        base=project.folder,
        header_columns=of_headers | _placing(run, of_headers),
    )


def _placing(run: Run, of_headers: frozenset[str]) -> frozenset[str]:
    """Return the columns of headers that say where slices lie and how they are weighted, where the run needs it.

    Not those that its heads get as they are, which the data set may call otherwise than headers do; and no words of
    descriptions where the run's own data, read from headers, has none.
    """
    needed = {*run.predictor.columns, *(rule.column for rule in run.image_rules if rule is not None)}
    if run.identity.crop is None and needed.isdisjoint((KIND, PLACE)):
        return frozenset()
    return HEADER_COLUMNS - needed - ({DESCRIPTION} if "echo_time_ms" in of_headers else set())


def _known_store(run: Run, asked: PredictOptions, opened: Openings) -> Store | None:
    """Return the store whose rows files may be; None where there is none of the run's kind."""
    if asked.cases is None:
        return None
    path, must_fit = Path(asked.cases), asked.cases_must_fit
    if not must_fit and not StoreLayout(path).store_file.is_file():
        return None
    store = opened.store(path)
    if not must_fit and store.identity.sha256 != run.identity.sha256:
        return None
    run.require_identity(store.identity)
    return store


def _answerer(
    run: Run,
    store: Store | None,
    asked: PredictOptions,
    usual: int,
    opened: Openings,
    *,
    held: Store | None = None,
) -> Answerer:
    """Return what answers; with the nearest cases where some are wanted and a store has labelled ones."""
    count = usual if asked.neighbors is None else asked.neighbors
    same = held is not None and asked.cases is not None and held.path.resolve() == Path(asked.cases).resolve()
    if count and held is not None and not same:
        store = _known_store(run, asked, opened)
    return Answerer(
        run=run,
        threshold=asked.threshold,
        prevalence=asked.prevalence,
        cases=_cases(run, store, asked, opened) if count and store is not None else None,
        count=count,
        with_paths=asked.with_paths,
    )


def _cases(run: Run, store: Store, asked: PredictOptions, opened: Openings) -> LabelledCases | None:
    """Return the labelled cases of a store; None where it has no such task and needs none."""
    name = run.document["task"]["name"]
    if name in task_names(store.path):
        return opened.cases(store, name, run.targets)
    if asked.cases_must_fit:
        raise UsageError(f"--store: {store.path} has no task {name!r}, so no labelled cases")
    return None
