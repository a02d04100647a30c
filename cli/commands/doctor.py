"""``embed doctor``: what is there, what is missing, and the fix."""

from __future__ import annotations

from pathlib import Path

import click

from cli.completion import complete_encoders
from cli.exit_codes import DONE, FAILED
from cli.key_options import key_option
from cli.options import ProjectCommand, json_option, print_json, project_of, store_option
from cli.own_options import encoder_option, encoder_options_of
from cli.printing.findings import finding_document, print_finding
from embedstore.encoders.base import Encoder
from embedstore.encoders.registry import image_encoder
from embedstore.extraction.doctor import examine
from embedstore.extraction.installed import State
from embedstore.keys.key_file import read_key
from heads.registry import head_family


@click.command(name="doctor", cls=ProjectCommand)
@store_option
@click.option(
    "--encoder",
    default="hog",
    show_default=True,
    help="Encoder whose speed is measured.",
    shell_complete=complete_encoders,
)
@encoder_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@key_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    store: Path | None,
    encoder: str,
    encoder_option: tuple[str, ...],
    device: str,
    key_file: Path | None,
    as_json: bool,
) -> int:
    """Check versions, devices, weights, disk and speed; say the fix for each problem.

    \b
    Example:
      embed doctor --store mura.store --encoder hog
    """
    own = encoder_options_of(encoder, encoder_option, project_of(context).settings)

    def build(name: str) -> Encoder:
        return image_encoder(name, device=device, options=own if name == encoder else None)

    findings = []
    key = None if key_file is None else read_key(key_file)
    for finding in examine(store, build, encoder, key=key, load_head=head_family):
        findings.append(finding)
        if not as_json:
            print_finding(finding)
    broken = any(finding.state is State.BROKEN for finding in findings)
    if as_json:
        print_json(
            {
                "sound": not broken,
                "findings": [finding_document(finding) for finding in findings],
            }
        )
    return FAILED if broken else DONE
