"""What the shell completes after TAB: names of heads, presets, data sets, encoders, tasks, targets and runs.

Whatever goes wrong (a damaged store, a package that cannot be loaded) means no suggestions: the command says why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from cli.project import Project
from embedstore.errors import EmbedError

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_ALL = "all"
_BLEND = "blend"


def _completed(names: Callable[[click.Context], Iterable[str]], *, or_folder: bool = False) -> Complete:
    """Return what click calls: the names that begin with what was typed; with `or_folder` else folders on disk."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del parameter
        found: list[str] = []
        with contextlib.suppress(EmbedError, OSError, ImportError):
            found = [name for name in names(context) if name.startswith(incomplete)]
        if or_folder and not found:
            return [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(name) for name in found]

    return complete


def _heads(context: click.Context) -> Iterable[str]:
    del context
    from heads.registry import head_names

    return [*head_names(), _BLEND, _ALL]


def _presets(context: click.Context) -> Iterable[str]:
    del context
    from heads.estimators.presets import preset_names

    return preset_names()


def _datasets(context: click.Context) -> Iterable[str]:
    del context
    from embedstore.datasets.base import dataset_names

    return dataset_names()


def _encoders(context: click.Context) -> Iterable[str]:
    del context
    from embedstore.encoders.registry import encoder_names

    return encoder_names()


def _preprocess_presets(context: click.Context) -> Iterable[str]:
    del context
    from embedstore.images.preprocess import PRESETS

    return PRESETS


def _tasks(context: click.Context) -> Iterable[str]:
    from embedstore.store.tasks import task_names

    return sorted({name for store in _stores(context) for name in task_names(store)})


def _targets(context: click.Context) -> Iterable[str]:
    from embedstore.store.tasks import read_task, task_names

    wanted = context.params.get("task")
    return [
        target
        for store in _stores(context)[:1]
        for name in task_names(store)
        if wanted in (None, name)
        for target in read_task(store, name).targets
    ]


def _columns(context: click.Context) -> Iterable[str]:
    from embedstore.store.reader import open_store

    return [name for store in _stores(context)[:1] for name in open_store(store).table.column_names]


def _runs(context: click.Context) -> Iterable[str]:
    settings = _project(context).settings
    folder = Path(settings.get("runs", "runs"))
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return sorted(str(file.parent) for file in folder.glob("*/run.json"))


def _stores(context: click.Context) -> list[Path]:
    """Return the stores of the command line, or that of ``embed.toml``."""
    named: Any = context.params.get("store_argument") or context.params.get("store")
    named = named or _project(context).settings.get("store") or ()
    return [Path(path) for path in (named if isinstance(named, (list, tuple)) else [named])]


def _project(context: click.Context) -> Project:
    return context.obj if isinstance(context.obj, Project) else Project(Path.cwd())


complete_heads = _completed(_heads)
complete_presets = _completed(_presets)
complete_datasets = _completed(_datasets)
complete_encoders = _completed(_encoders, or_folder=True)
complete_preprocess = _completed(_preprocess_presets)
complete_tasks = _completed(_tasks)
complete_targets = _completed(_targets)
complete_columns = _completed(_columns)
complete_runs = _completed(_runs, or_folder=True)
