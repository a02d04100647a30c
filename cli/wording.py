"""The library speaks of its arguments and functions; here they become options and commands."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping

from embedstore.errors import Advice

# Arguments whose option has another name than theirs with hyphens.
_OPTIONS = {
    "targets": "--target",
    "task_name": "--task",
    "with_columns": "--with",
    "subgroups": "--subgroup",
    "rotate_deg": "--rotate",
    "head_widths": "--head-shape",
    "views": "--cache-views",
    "viewer": "--for",
}
ADVICE = {
    Advice.REPAIR: "Run: embed verify --repair",
    Advice.UPGRADE: "Run: embed verify --upgrade",
    Advice.EXTRACT: "Run `embed extract` again",
    Advice.ADD_TASK: "`embed label` adds one",
    Advice.CHANGE_TASK: "`embed label` replaces a task",
    Advice.PROBE: "`embed probe` makes one",
    Advice.LOCALISE: "`embed localise` makes one",
}
_ARGUMENT = re.compile(r"`([a-z_]+)(?:=([^`]+))?`")


def for_command_line(text: str) -> str:
    """Return a message of the library as the command line says it.

    Examples
    --------
    >>> for_command_line("`head='zeroshot'` needs an encoder with words, by `encoder`")
    '--head zeroshot needs an encoder with words, by --encoder'
    >>> for_command_line("`targets=['left', 'right side']` can be learned")
    "--target left --target 'right side' can be learned"
    """
    for advice, words in ADVICE.items():
        text = text.replace(advice.value, words)
    return _ARGUMENT.sub(_option, text)


def in_options(facts: Mapping[str, str | int]) -> dict[str, str | int]:
    """Return a data set's summary as the command line says it."""
    return {name: for_command_line(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}


def _option(found: re.Match[str]) -> str:
    name, value = found.groups()
    option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
    if value is not None and value.startswith("[") and value.endswith("]"):
        # A list of names is the option once for each.
        return " ".join(f"{option} {shlex.quote(str(entry))}" for entry in ast.literal_eval(value))
    if value is None or value == "True":
        return option
    return f"{option} {shlex.quote(value.strip(chr(39)))}"
