"""What to type next: commands that work as they are printed, in the folder where they are printed."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from cli.options import project_of
from cli.project import shown
from embedstore.store.tasks import task_names


def command_on(store: Path, *words: str) -> str:
    """Return ``embed`` and `words`, with ``--store`` unless ``embed.toml`` names this store.

    Parameters
    ----------
    store
        The store that the command is about.
    words
        The command and its options.
    """
    own = project_of(click.get_current_context()).settings.get("store")
    named = own is not None and Path(own).resolve() == store.resolve()
    return shlex.join(["embed", *words, *([] if named else ["--store", shown(store)])])


def print_next_probe(store: Path, *, task: str | None = None) -> None:
    """Print the command that probes a store; where it has no task, the one that says how to add one.

    Parameters
    ----------
    store
        The store.
    task
        The task that was just made; None for the one of ``embed.toml``, or else the store's first.
    """
    tasks = task_names(store)
    if not tasks:
        click.echo("Next: embed label --help (the store has no task yet; a table makes one)")
        return
    settings = project_of(click.get_current_context()).settings
    usual = settings.get("task", tasks[0] if len(tasks) == 1 else None)
    wanted = task or (usual if usual in tasks else tasks[0])
    click.echo(f"Next: {command_on(store, 'probe', *([] if wanted == usual else ['--task', wanted]))}")
