"""The ``embed`` command: finds a command lazily, and turns errors into one line and an exit code."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from cli.exit_codes import DONE, FAILED, STOPPED, WRONG_USAGE
from cli.wording import for_command_line
from embedstore.errors import EmbedError, UsageError, did_you_mean

_OBJECTS_BETWEEN_COLLECTIONS = 50_000  # Python's own: 700
# Command -> what it does, so that `embed --help` imports no command. In the order a new user meets them.
COMMANDS = {
    "demo": "Make phantom images and run the main job on them.",
    "init": "Write embed.toml, so that the other commands need no options.",
    "extract": "Phase one: turn every image into a vector, once.",
    "localise": "Find the levels of lumbar spines in a store's token grids.",
    "probe": "Phase two: fit, calibrate and evaluate a head on the vectors.",
    "escalate": "Say whether a run is worth fine-tuning its encoder.",
    "finetune": "Escalate: train blocks or adapters of an encoder, and get an encoder back.",
    "predict": "Answer for images, folders or a store with a probe's run.",
    "search": "Find the most similar studies, or see how often these agree.",
    "audit": "Find copies, leaks, and images that are not what their rows say.",
    "serve": "Show stores on a page: drop an image, look at similar cases and at a map.",
    "report": "Draw one HTML page from one or more runs.",
    "compare": "Compare encoders and heads, paired on the units that their runs have in common.",
    "generate": "Ask a generative model about lumbar studies, for `embed compare --responses`.",
    "info": "Show what a store holds.",
    "verify": "Re-read every byte of a store; --repair heals it.",
    "export": "Write a store's vectors to HDF5 (with tasks), npz or Parquet.",
    "import": "Make a store of vectors that another tool has computed.",
    "label": "Add a task to a store from a table.",
    "keys": "Write who is who, for the owner of a store with keyed ids.",
    "doctor": "Check versions, devices, weights, disk and speed.",
}
# Commands that have a room of their own.
_ROOMS = {
    "audit": "cli.exploring",
    "compare": "cli.comparing",
    "escalate": "cli.escalating",
    "finetune": "cli.finetuning",
    "generate": "cli.generating",
    "localise": "cli.localising",
    "search": "cli.exploring",
    "serve": "cli.page",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(
            f"{_ROOMS.get(cmd_name, 'cli.commands')}.{cmd_name}"
        ).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the one that was meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UsageError(
                f"No such command {args[0]!r}; see `embed --help`{did_you_mean(args[0], COMMANDS)}"
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands without importing them."""
        items = [
            CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)
        ]
        # The options of the group itself.
        return items or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="embedstore", prog_name="embed")
def cli() -> None:
    """Turn medical images into a store of embeddings once; answer questions from it in seconds.

    Start with `embed demo`. Research software, not a medical device.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    An error is one line on stderr; with ``--json`` it is an object on stdout, too: ``error``, ``kind`` (the name of the
    Python exception) and ``exit_code``.
    """
    # Where the command line itself is wrong, no command knows of the option.
    as_json = "--json" in arguments
    try:
        outcome = cli.main(args=list(arguments), prog_name="embed", standalone_mode=False, obj=run)
    except click.ClickException as error:
        error.show()
        code = WRONG_USAGE if isinstance(error, click.UsageError) else FAILED
        kind = UsageError if isinstance(error, click.UsageError) else type(error)
        return _failed(kind, error.format_message(), code=code, as_json=as_json)
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return _failed(KeyboardInterrupt, "stopped", code=STOPPED, as_json=as_json)
    except EmbedError as error:
        message = _say(". ".join([for_command_line(str(error)), *getattr(error, "__notes__", [])]))
        code = WRONG_USAGE if isinstance(error, UsageError) else FAILED
        return _failed(type(error), message, code=code, as_json=as_json)
    except BrokenPipeError:
        # The reader (head, less) has gone; the interpreter would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        message = _say(f"{(error.strerror or str(error))}{name}")
        return _failed(type(error), message, code=FAILED, as_json=as_json)
    return outcome if isinstance(outcome, int) else DONE


def main() -> None:
    """Entry point of the ``embed`` command.

    A process of one command makes no cycles worth looking for while it imports, nor among what torch holds when it
    ends: that took 0.4 of the 2.5 seconds of a search.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    code = run(sys.argv[1:])
    gc.freeze()
    sys.exit(code)


def _say(message: str) -> str:
    """Print a message on stderr, in one line; return the line."""
    line = " ".join(message.split())
    click.echo(f"Error: {line}", err=True)
    return line


def _failed(kind: type[BaseException], message: str, *, code: int, as_json: bool) -> int:
    """Return the exit code; for machines, say the error on stdout as they expect it."""
    if as_json:
        click.echo(json.dumps({"error": message, "kind": kind.__name__, "exit_code": code}))
    return code


if __name__ == "__main__":
    main()
