"""``embed verify``: re-read every byte."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cli.exit_codes import DONE, FAILED
from cli.options import ProjectCommand, json_option, plural, print_json, require, store_argument
from cli.project import shown
from embedstore.store.layout import FORMAT_VERSION
from embedstore.store.repair import repair_store
from embedstore.store.upgrade import upgrade_store
from embedstore.store.verify import Verification, verify_store


@click.command(name="verify", cls=ProjectCommand)
@store_argument
@click.option(
    "--repair",
    is_flag=True,
    help="Heal what can be healed; damaged chunks are done again by the next extract.",
)
@click.option(
    "--upgrade",
    is_flag=True,
    help="First bring a store of an earlier format version to the present one; its vectors stay as they are.",
)
@json_option
def command(
    store_argument: Path | None, store: Path | None, repair: bool, upgrade: bool, as_json: bool
) -> int:
    """Re-read every byte of a store against its receipts; name what is wrong by chunk and rows.

    \b
    Example:
      embed verify mura.store
    """
    path = Path(require(store_argument or store, "--store"))
    if upgrade and upgrade_store(path, say=_say):
        _say(f"{shown(path)}: upgraded to format version {FORMAT_VERSION}")
    if not repair:
        verification = verify_store(path)
        _print(path, verification, as_json=as_json)
        return FAILED if verification.findings else DONE
    before = repair_store(path, say=_say)
    after = verify_store(path)
    if as_json:
        print_json({"repaired": [asdict(finding) for finding in before.findings], **_as_json(path, after)})
    elif before.findings:
        click.echo(
            f"{shown(path)}: {plural(len(before.findings), 'problem')} repaired{_pending(after)}. "
            "Run: embed extract"
        )
    else:
        _print(path, after, as_json=False)
    return FAILED if after.findings else DONE


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print(path: Path, verification: Verification, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(path, verification))
        return
    for finding in verification.findings:
        click.echo(f"{finding}")
    counted = f"{plural(verification.chunks, 'chunk')}, {plural(verification.rows, 'row')}"
    if verification.findings:
        click.echo(
            f"{shown(path)}: {plural(len(verification.findings), 'problem')} in {counted}{_pending(verification)}. "
            f"Run: embed verify {shown(path)} --repair"
        )
    else:
        advice = ". Run: embed extract" if verification.pending else ""
        click.echo(
            f"{shown(path)}: sound ({counted} read, every byte as committed){_pending(verification)}{advice}"
        )


def _pending(verification: Verification) -> str:
    return f"; {plural(verification.pending, 'row')} pending" if verification.pending else ""


def _as_json(path: Path, verification: Verification) -> dict[str, object]:
    return {
        "store": str(path),
        "sound": not verification.findings,
        "chunks": verification.chunks,
        "rows": verification.rows,
        "pending": verification.pending,
        "findings": [asdict(finding) for finding in verification.findings],
    }
