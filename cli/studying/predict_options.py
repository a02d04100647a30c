"""How inputs are answered, and the data set that the project is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedstore.files import StrPath

NEAREST = 3


@dataclass(frozen=True, kw_only=True)
class ProjectData:
    """The data set that a project is about; its files have the ids that they have in the store.

    Parameters
    ----------
    folder
        Folder of the project, which ids of other files are relative to.
    dataset, root, options
        Reader of the data set, its folder or table, and the reader's own options; None and empty without one.
    """

    folder: Path = field(default_factory=Path.cwd)
    dataset: str | None = None
    root: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How inputs are answered.

    Parameters
    ----------
    threshold, prevalence
        As `heads.runs.answers.predict_units`.
    metadata
        Column -> value of all inputs, where the run was fitted with metadata; a store brings its own, and so do files
        of a data set that is known.
    neighbors
        Nearest labelled cases of each unit; by default `NEAREST` for files and none for a store, of which every
        image would be searched for.
    cases
        Store to look for cases and for the files' own rows in; none by default.
    cases_must_fit
        Whether a store of another kind is an error, or is left out of account.
    ids, where
        Of a store, only these units (or those of these images), and only images that meet these conditions.
    project
        The project's data set.
    encoder
        Folder or hub id of the run's encoder; its registered name by default.
    device
        Device of the encoder.
    workers
        Decoding processes.
    key_file
        Key of the ids of the data set, and of stores whose paths are hidden; by default that among the options of
        `project`.
    by
        Which clinical id `ids` are, as `embedstore.queries.clinical_ids.ClinicalIds.unit_ids`.
    with_paths
        Name a unit's first file beside its id.
    levels, level_places
        Of a run over lumbar crops, the localiser's run, and where else it may be
        (`cli.studying.find_localiser.localiser_of_run`).
    """

    threshold: str = "half"
    prevalence: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    neighbors: int | None = None
    cases: StrPath | None = None
    cases_must_fit: bool = True
    ids: Sequence[str] = ()
    where: Sequence[str] = ()
    project: ProjectData = field(default_factory=ProjectData)
    encoder: str | None = None
    device: str = "auto"
    workers: int = 2
    key_file: StrPath | None = None
    by: str | None = None
    with_paths: bool = True
    levels: StrPath | None = None
    level_places: Sequence[StrPath] = ()
