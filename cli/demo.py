"""``embed demo``: the main job, from images to answers, on phantoms that it draws itself."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from cli.main import DONE, run
from cli.project import shown
from embedstore.errors import UsageError


@click.command(name="demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder to work in.",
)
@click.option(
    "--patients", type=click.IntRange(20), default=400, show_default=True, help="Phantom patients to draw."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the drawing.")
def command(out: Path, patients: int, seed: int) -> int:
    """Draw phantom radiographs in MURA's format and run every step on them, with the weights-free encoder.

    \b
    Example:
      embed demo --out demo
    """
    from embedstore.datasets.phantom import write_phantom_mura

    if out.exists() and any(out.iterdir()) and not (out / "embed.toml").is_file():
        raise UsageError(f"--out: {out} is not empty and holds no demo; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(out):
        click.echo(f"drawing {patients} phantom patients (computer drawings, not patients) ...")
        write_phantom_mura(Path(), patients=patients, seed=seed)
        for line in _steps(Path()):
            click.echo(f"\n$ {line}")
            code = run(shlex.split(line)[1:])
            if code != DONE:
                return code
        example = next(path for path in sorted(Path().glob("MURA-v1.1/valid/XR_WRIST/*/*/image*.png")))
    click.echo(_closing(out, example.relative_to("MURA-v1.1").as_posix()))
    return DONE


def _steps(folder: Path) -> Iterator[str]:
    yield "embed init --dataset mura --root MURA-v1.1 --store mura.store --encoder hog --force"
    yield "embed extract"
    yield "embed probe --head logistic"
    study = next(
        path for path in sorted(folder.glob("MURA-v1.1/valid/XR_*/patient*/study*")) if path.is_dir()
    )
    yield f"embed predict --probe runs/abnormal-logistic {study}"
    image = next(path for path in sorted(study.glob("image*.png")))
    yield f"embed search {image} -k 5"
    yield "embed report runs/abnormal-logistic"


def _closing(out: Path, image_id: str) -> str:
    return f"""
In {shown(out.resolve())}: phantom radiographs (MURA-v1.1), a store (mura.store), a run with its report
(runs/abnormal-logistic/report.html) and embed.toml, which is why these need no options. Try next, there:

  embed info
  embed search --id {image_id} --where anatomy=XR_WRIST
  embed export out.h5"""
