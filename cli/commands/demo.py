"""``embed demo``: the main job, from images to answers, on phantoms that it draws itself."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from cli.exit_codes import DONE
from cli.project import shown
from embedstore.errors import UsageError

# So many that one target of the lumbar task can be learned.
_LUMBAR_STUDIES = 24


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
@click.pass_context
def command(context: click.Context, out: Path, patients: int, seed: int) -> int:
    """Draw phantom radiographs in MURA's format and run every step on them, with the weights-free encoder.

    \b
    Example:
      embed demo --out demo
    """
    from embedstore.phantoms.lumbar import write_phantom_lumbar
    from embedstore.phantoms.mura import write_phantom_mura

    # The command line itself, which hands its own entry over: a command does not import the group that imports it.
    run: Callable[[Sequence[str]], int] = context.find_root().obj
    if out.exists() and any(out.iterdir()) and not (out / "embed.toml").is_file():
        raise UsageError(f"--out: {out} is not empty and holds no demo; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(out):
        click.echo(
            f"drawing phantoms (computer drawings, not patients): {patients} of MURA, {_LUMBAR_STUDIES} lumbar ..."
        )
        write_phantom_mura(Path(), patients=patients, seed=seed)
        lumbar = write_phantom_lumbar(Path(), studies=_LUMBAR_STUDIES, seed=seed).root
        for line in _steps(Path(), lumbar):
            click.echo(f"\n$ {line}")
            code = run(shlex.split(line)[1:])
            if code != DONE:
                return code
        example = next(path for path in sorted(Path().glob("MURA-v1.1/valid/XR_WRIST/*/*/image*.png")))
    click.echo(_closing(out, example.relative_to("MURA-v1.1").as_posix()))
    return DONE


def _steps(folder: Path, lumbar: Path) -> Iterator[str]:
    yield "embed init --dataset mura --root MURA-v1.1 --store mura.store --encoder hog --force"
    yield "embed extract"
    # A demo's folder may have got further tasks since.
    yield "embed probe --task abnormal --head logistic"
    study = next(
        path for path in sorted(folder.glob("MURA-v1.1/valid/XR_*/patient*/study*")) if path.is_dir()
    )
    yield f"embed predict --probe runs/abnormal-logistic {study}"
    image = next(path for path in sorted(study.glob("image*.png")))
    yield f"embed search {image} -k 5"
    yield "embed report runs/abnormal-logistic"
    yield f"embed extract --dataset rsna-lumbar --root {lumbar} --store lumbar.store --encoder hog"


def _closing(out: Path, image_id: str) -> str:
    return f"""
In {shown(out.resolve())}: phantom radiographs (MURA-v1.1) and lumbar MRI, their stores (mura.store, lumbar.store),
a run with its report (runs/abnormal-logistic/report.html), and embed.toml, which is why these need no options:

  embed info
  embed search --id {image_id} --where anatomy=XR_WRIST
  embed export out.h5"""
