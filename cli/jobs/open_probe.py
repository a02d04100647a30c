"""Open what a probe is asked of: its stores, their labelled vectors, and where its run shall lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cli.jobs.run_folder import require_own_run, require_run_folder, run_suffix
from cli.notify import Notify, ignore
from embedstore.audit.keep_list import read_keep_list, require_known
from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.target_images import TARGETS_OF_CONDITIONS, rules_of_crops
from embedstore.queries.load_view import LEFT_OUT, load_views
from embedstore.queries.opened_stores import only_task
from embedstore.store.reader import Store, open_store
from embedstore.store.tasks import read_task
from embedstore.task import ImageRule
from embedstore.view import View, without_split
from heads.base import HeadFamily
from heads.estimators.presets import preset, preset_family
from heads.inputs.input_ways import HeadInputs, all_inputs
from heads.inputs.metadata import require_metadata_columns
from heads.inputs.pooling import IMAGES
from heads.protocol.options import ProbeOptions, options_of
from heads.protocol.splits import TrainedUnits, with_trained_units
from heads.registry import head_needs
from heads.stages import stage

_LEVEL = "level"
# A crop's neighbours show the same: their mean is less noisy than the mean of what is said of each.
_POOLED_CROPS = "mean-vector"


@dataclass(frozen=True, kw_only=True)
class ProbeJob:
    """A probe as people ask for it.

    Parameters
    ----------
    stores
        One store, or several of one identity with different images, which are used as one.
    task
        Task of the stores; may be None when the first has exactly one.
    options
        How; a preset brings its head, and the name of a head stands for its defaults.
    out
        Run folder; for several heads the folder that holds one for each. By default one below `runs` that is named
        after the task, the head and the options.
    runs
        Folder of the runs that are named so.
    own_store
        The store that a project always means: it leaves no trace in the name.
    thumbnails
        Put pictures of confident errors into the report; they are patients' images.
    encoder
        Folder or hub id of the stores' encoder, for heads that compare with words; its registered name by default.
    prompts
        File of prompts for such heads.
    key_file
        Key of stores whose paths are hidden, for their pictures.
    subgroups
        Manifest columns by which results are split, beside those that the task names.
    parts
        Heads of a blend (`cli.jobs.probe_blend`); all that can run by default.
    image_rules
        Target -> which images speak for it, in place of what the task says. Of stores of crops and a task of the RSNA
        lumbar targets they are by default the crops of each target, and a condition has one head for all its targets.
    fold_of_patient
        Outer fold of each patient, in place of those that the probe would deal.
    trained_patients
        What becomes of units whose patients a fine-tuned encoder was trained on (`heads.protocol.splits`).
    keep_list
        List of images to leave out (`embedstore.audit.keep_list`).
    """

    stores: Sequence[StrPath]
    task: str | None = None
    options: ProbeOptions | str = "logistic"
    out: StrPath | None = None
    runs: StrPath = "runs"
    own_store: StrPath | None = None
    thumbnails: bool = False
    encoder: str | None = None
    prompts: StrPath | None = None
    key_file: StrPath | None = None
    subgroups: Sequence[str] = ()
    parts: Sequence[str] = ()
    image_rules: Mapping[str, ImageRule] | None = None
    fold_of_patient: Mapping[str, int] | None = None
    trained_patients: TrainedUnits = "refuse"
    keep_list: StrPath | None = None


@dataclass(frozen=True, kw_only=True)
class OpenedProbe:
    """A probe whose stores are open and whose vectors are loaded, once for all its heads.

    Parameters
    ----------
    job
        What was asked for.
    options
        How; with the head of its preset.
    family
        The grid of the preset; None without one.
    stores
        The opened stores.
    view
        Their labelled vectors, as the options ask for them.
    level_is_chosen
        Whether a head may be told the level of each crop, by out-of-fold log loss: nothing else was asked for.
    """

    job: ProbeJob
    options: ProbeOptions
    family: HeadFamily | None
    stores: Sequence[Store]
    view: View
    level_is_chosen: bool = False

    def options_of(self, head: str) -> ProbeOptions:
        """Return the options with a head, and with what it may get of crops."""
        options = replace(self.options, head=head)
        if not self.level_is_chosen:
            return options
        needs = head_needs(head)
        plain = HeadInputs(IMAGES if needs.images else _POOLED_CROPS)
        told = () if needs.text_tower else (replace(plain, metadata=(_LEVEL,)),)
        return replace(options, inputs=(plain, *told))

    def place(self, name: str) -> Path:
        """Return the folder of the run that is named after the task, a head or preset, and the options."""
        prompts = self.job.prompts
        suffix = run_suffix(
            # Levels of crops are no choice of the caller's.
            replace(self.options, with_columns=options_of(self.job.options).with_columns),
            stores=_other_stores(self.job),
            prompts=None if prompts is None else Path(prompts).stem,
        )
        kept = "" if self.job.keep_list is None else f"-{Path(self.job.keep_list).stem}"
        return Path(self.job.runs) / f"{self.view.task.name}-{name}{suffix}{kept}"

    def require_folder(self, folder: Path) -> None:
        """Refuse a place of a run where it cannot lie, or where nobody asked for one of other stores to be replaced."""
        require_run_folder(folder)
        if self.job.out is None:
            require_own_run(folder, {source.store for source in self.view.sources})


def open_probe(job: ProbeJob, *, notify: Notify = ignore) -> OpenedProbe:
    """Open the stores and load their vectors; raises as `probe_store`."""
    options, family = _with_preset(options_of(job.options))
    require_metadata_columns(tuple(options.with_columns or ()))
    with stage("loading the vectors"):
        stores = [open_store(Path(path)) for path in job.stores]
        of_crops = _holds_crops_of_targets(stores, job.task)
        rules = rules_of_crops() if of_crops and job.image_rules is None else job.image_rules
        level_is_chosen = of_crops and not (
            options.with_columns or options.pooling or options.select_inputs or options.inputs
        )
        if of_crops:
            options = replace(
                options,
                shared_heads=options.shared_heads or TARGETS_OF_CONDITIONS,
                with_columns=(_LEVEL,) if level_is_chosen else options.with_columns,
            )
        columns = tuple(dict.fromkeys([*(options.with_columns or ()), *options.place_columns]))
        kept = None if job.keep_list is None else read_keep_list(job.keep_list)
        loaded = load_views(
            stores,
            job.task,
            with_columns=columns,
            subgroups=job.subgroups,
            image_rules=rules,
            left_out=kept.left_out if kept else (),
        )
        if kept:
            require_known(kept, loaded.excluded.get(LEFT_OUT, 0), holder="what the task labels")
        if options.cross_validate:
            loaded = without_split(loaded)
        view = options.take(with_trained_units(loaded, job.trained_patients))
        if job.fold_of_patient is not None:
            view = replace(view, folds=_folds_of(view, job.fold_of_patient))
    if options.select_inputs and len(all_inputs(view)) == 1:
        notify("--select-inputs: nothing to choose from: no study has several images, and there is no --with")
    return OpenedProbe(
        job=job,
        options=options,
        family=family,
        stores=stores,
        view=view,
        level_is_chosen=level_is_chosen,
    )


def _folds_of(view: View, fold_of_patient: Mapping[str, int]) -> npt.NDArray[np.int64]:
    strange = [patient for patient in view.patients.tolist() if patient not in fold_of_patient]
    if strange:
        raise UsageError(
            f"{len(strange):,} units of task {view.task.name!r} are of patients who have no outer fold, the first of "
            f"{strange[0]!r}: the stores that are compared must hold the same studies"
        )
    return np.array([fold_of_patient[patient] for patient in view.patients.tolist()], np.int64)


def _holds_crops_of_targets(stores: Sequence[Store], task_name: str | None) -> bool:
    """Whether stores are of crops, and their task is of the RSNA lumbar targets, study by study."""
    if stores[0].identity.crop is None:
        return False
    task = read_task(stores[0].path, task_name or only_task(stores[0]))
    return task.unit == "study" and set(task.targets) == set(TARGETS)


def _with_preset(options: ProbeOptions) -> tuple[ProbeOptions, HeadFamily | None]:
    """Return the options with the head of their preset, and its grid; unchanged and None without one."""
    if options.preset is None:
        return options, None
    head, family = preset_family(options.preset)
    if options.head not in (head, ProbeOptions().head):
        raise UsageError(
            f"preset={options.preset!r} brings its own head, {head!r}; leave head={options.head!r} out"
        )
    shots = preset(options.preset).shots
    if shots is not None and options.shots not in (None, shots):
        raise UsageError(
            f"preset={options.preset!r} learns from {shots} units; leave `shots={options.shots}` out"
        )
    return replace(options, head=head, shots=options.shots if shots is None else shots), family


def _other_stores(job: ProbeJob) -> list[str]:
    """Return the names of the stores, unless they are the project's own or there is only one and no project."""
    stores = [Path(path).resolve() for path in job.stores]
    if len(stores) == 1 and (job.own_store is None or stores[0] == Path(job.own_store).resolve()):
        return []
    return [path.name.removesuffix(".store") for path in stores]
