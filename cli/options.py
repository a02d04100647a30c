"""Options that mean the same everywhere, and what commands share in printing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from cli.project import FILE_NAME, KEYS, Project, find_project
from cli.wording import for_command_line
from embedstore.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


class ProjectCommand(click.Command):
    """A command whose options default to the settings of ``embed.toml``."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Put the project's settings below the command line and above the built-in defaults."""
        if not {"-h", "--help"} & set(args):
            project = _project(completing=bool(extra.get("resilient_parsing")))
            several = {parameter.name: getattr(parameter, "multiple", False) for parameter in self.params}
            extra["default_map"] = {
                # A key holds one value, also where the option may be given several times.
                key: [entry] if several[key] and isinstance(entry, str) else entry
                for key, entry in project.settings.items()
                if key in several
            }
            extra["obj"] = project
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, context: click.Context) -> Any:
        """Run the command; of a wrong option that nobody typed, say where it stands."""
        try:
            return super().invoke(context)
        except UsageError as error:
            said = for_command_line(str(error))
            for parameter in self.params:
                name = str(parameter.name)
                if context.get_parameter_source(name) is not ParameterSource.DEFAULT_MAP:
                    continue
                named, value = parameter.opts[0] in re.findall("--[a-z-]+", said), context.params.get(name)
                if isinstance(value, str) and (named or repr(value) in said):
                    error.add_note(f"{name} = {value!r} stands in {FILE_NAME}")
            raise


def _project(*, completing: bool) -> Project:
    try:
        return find_project(Path.cwd())
    except UsageError:
        # While the shell completes a word is no time to talk about embed.toml.
        if completing:
            return Project(Path.cwd())
        raise


def project_of(context: click.Context) -> Project:
    """Return the project that the command runs in."""
    found: Project = context.obj
    return found


def is_typed(context: click.Context, name: str) -> bool:
    """Say whether an option stands on the command line itself, and not in ``embed.toml``."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def of_store(context: click.Context, name: str, store: Path | None) -> Any:
    """Return an option of a command about a store; None where ``embed.toml`` has it for another store than this one."""
    own = project_of(context).settings.get("store")
    another = own is not None and store is not None and Path(own).resolve() != store.resolve()
    return None if another and not is_typed(context, name) else context.params[name]


def store_option(function: F) -> F:
    """Add ``--store``: the store's folder."""
    return click.option("--store", type=click.Path(path_type=Path), help="The store's folder.")(function)


def stores_option(function: F) -> F:
    """Add ``--store``, which may be given several times: the stores' folders."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path),
        multiple=True,
        help="The store's folder; several of one identity, with different images, are used as one.",
    )(function)


def store_argument(function: F) -> F:
    """Add the argument STORE, which wins over ``--store`` and ``embed.toml``."""
    return click.argument(
        "store_argument", metavar="[STORE]", required=False, type=click.Path(path_type=Path)
    )(store_option(function))


def json_option(function: F) -> F:
    """Add ``--json``: one JSON object on stdout instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object for machines.")(
        function
    )


def where_option(function: F) -> F:
    """Add ``--where``: conditions on columns of the manifest."""
    return click.option(
        "--where",
        multiple=True,
        metavar="CONDITION",
        help="Only images that meet it: COLUMN=VALUE, COLUMN!=VALUE, COLUMN~PART, COLUMN<NUMBER (<=, >, >=) or "
        "'COLUMN in VALUE,VALUE'; repeatable. A value with a comma among several stands in double quotes.",
    )(function)


def keep_option(function: F) -> F:
    """Add ``--keep-list``: a list of images to leave out."""
    return click.option(
        "--keep-list",
        type=click.Path(path_type=Path),
        help="Leave images out that this list says `no` to; `embed audit --keep FILE` writes one.",
    )(function)


def subgroups_option(function: F) -> F:
    """Add ``--subgroup``: columns by which results are split, repeated or with commas."""
    return click.option(
        "--subgroup",
        "subgroups",
        multiple=True,
        metavar="COLUMN,...",
        callback=lambda _context, _option, given: tuple(
            dict.fromkeys(name.strip() for names in given for name in names.split(",") if name.strip())
        ),
        help="Columns by which results are split, as manufacturer,sex,age; repeatable. Numbers are cut into bands.",
    )(function)


def require(setting: Any, option: str) -> Any:
    """Return `setting`, or say which option or key of ``embed.toml`` is needed."""
    if setting is None:
        key = option.removeprefix("--").replace("-", "_")
        advice = f", or run `embed init` once so that embed.toml holds {key!r}" if key in KEYS else ""
        raise UsageError(f"{option} is needed: give it{advice}")
    return setting


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(document, indent=1, ensure_ascii=False, default=str))


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, facts), default=0)
    for name, fact in facts.items():
        click.echo(f"{name:<{width}}  {fact}")


def plural(count: int, noun: str) -> str:
    """Return ``1 image`` or ``2 images``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def print_notice(line: str) -> None:
    """Print what a person should know, beside the answer and not in it."""
    click.echo(line, err=True)
