"""``embed demo``: the main job, from images to answers, on phantoms that it draws itself."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from cli.exit_codes import DONE
from cli.options import json_option, print_json
from cli.project import shown
from embedstore.errors import UsageError

_LUMBAR_STUDIES = 40
# Fewer give no localiser: it wants the points of 8 patients, and three folds of them.
_FEWEST_LUMBAR_STUDIES = 12
_LUMBAR_FOLDS = 3
_LUMBAR_STEPS = 200  # on 40 phantoms as good as three times as many
_NEAR_STEPS = 100  # as good as three times as many, too
_LUMBAR_HEAD = "knn"  # the quickest
_MADE_UP = "made-up.jsonl"
_SIGLIP = "siglip-random"  # `embedstore.phantoms.random_siglip`
_MURA_RUN = "runs/abnormal-logistic"
_LUMBAR_RUN = f"runs/lumbar-severity-crops-localised-{_LUMBAR_HEAD}-folds-{_LUMBAR_FOLDS}"


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
@click.option(
    "--lumbar-studies",
    type=click.IntRange(0),
    default=_LUMBAR_STUDIES,
    show_default=True,
    help=f"Phantom lumbar MR studies to draw; below {_FEWEST_LUMBAR_STUDIES} they are only extracted, 0 is none.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the drawing.")
@json_option
@click.pass_context
def command(
    context: click.Context, out: Path, patients: int, lumbar_studies: int, seed: int, as_json: bool
) -> int:
    """Draw phantom radiographs and lumbar MR and run every step on them, with the weights-free encoder.

    \b
    Example:
      embed demo --out demo
    """
    from embedstore.phantoms.lumbar import write_phantom_lumbar
    from embedstore.phantoms.made_up_responses import write_made_up_responses
    from embedstore.phantoms.mura import write_phantom_mura
    from embedstore.phantoms.random_siglip import NAME, write_random_siglip

    # The command line itself, which hands its own entry over: a command does not import the group that imports it.
    run: Callable[[Sequence[str]], int] = context.find_root().obj
    if out.exists() and any(out.iterdir()) and not (out / "embed.toml").is_file():
        raise UsageError(f"--out: {out} is not empty and holds no demo; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    # For machines the steps speak on stderr, and what they made is the one object on stdout.
    speaking = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    with contextlib.chdir(out), speaking:
        click.echo(
            f"drawing phantoms (computer drawings, not patients): {patients} of MURA, {lumbar_studies} lumbar ..."
        )
        write_phantom_mura(Path(), patients=patients, seed=seed)
        lumbar = (
            write_phantom_lumbar(Path(), studies=lumbar_studies, seed=seed).root if lumbar_studies else None
        )
        write_random_siglip(NAME, seed=seed)
        if lumbar:
            write_made_up_responses(_MADE_UP, lumbar, seed=seed)
        steps = [*_mura_steps(Path()), *(_lumbar_steps(lumbar, studies=lumbar_studies) if lumbar else ())]
        for line in steps:
            click.echo(f"\n$ {line}")
            code = run(shlex.split(line)[1:])
            if code != DONE:
                break
        example = next(path for path in sorted(Path().glob("MURA-v1.1/valid/XR_WRIST/*/*/image*.png")))
    if as_json:
        print_json({"folder": str(out.resolve()), "steps": steps, "exit_code": code, **_made(out)})
    elif code == DONE:
        click.echo(_closing(out, example.relative_to("MURA-v1.1").as_posix(), lumbar=lumbar is not None))
    return code


def _made(out: Path) -> dict[str, list[str]]:
    """Return the stores, runs and pages in the demo's folder, relative to it."""
    patterns = {"stores": "*.store", "runs": "runs/*/run.json", "reports": "runs/*/report.html"}
    found = {name: sorted(out.glob(pattern)) for name, pattern in patterns.items()}
    found["runs"] = [file.parent for file in found["runs"]]
    return {name: [path.relative_to(out).as_posix() for path in paths] for name, paths in found.items()}


def _mura_steps(folder: Path) -> Iterator[str]:
    yield "embed init --dataset mura --root MURA-v1.1 --store mura.store --encoder hog --force"
    yield "embed extract"
    # A demo's folder may have got further tasks since.
    yield "embed probe --task abnormal --head logistic"
    study = next(
        path for path in sorted(folder.glob("MURA-v1.1/valid/XR_*/patient*/study*")) if path.is_dir()
    )
    yield f"embed predict --probe {_MURA_RUN} {study}"
    image = next(path for path in sorted(study.glob("image*.png")))
    yield f"embed search {image} -k 5"
    yield f"embed report {_MURA_RUN}"


def _lumbar_steps(lumbar: Path, *, studies: int) -> Iterator[str]:
    """From slices to levels, crops around them, ways compared, an answer about a new study, made-up ones beside."""
    data = f"--dataset rsna-lumbar --root {lumbar} --encoder hog"
    yield f"embed extract {data} --store lumbar.store --tokens 64"
    if studies < _FEWEST_LUMBAR_STUDIES:
        return
    yield f"embed localise --store lumbar.store --folds {_LUMBAR_FOLDS} --steps {_LUMBAR_STEPS}"
    yield f"embed extract {data} --store near.store --crops runs/levels --crop-neighbours 0 --tokens 64"
    yield f"embed localise --store lumbar.store --near near.store --steps {_NEAR_STEPS}"
    yield f"embed extract {data} --store crops.store --crops runs/levels-near --crop-neighbours 0"
    yield (
        f"embed probe --store lumbar.store --crops crops.store --task lumbar-severity --head {_LUMBAR_HEAD} "
        f"--folds {_LUMBAR_FOLDS}"
    )
    study = next(path for path in sorted(lumbar.glob("test_images/*")) if path.is_dir())
    yield f"embed predict --probe {_LUMBAR_RUN} --format compact {study}"
    yield f"embed compare {_LUMBAR_RUN} --responses {_MADE_UP}"


def _closing(out: Path, image_id: str, *, lumbar: bool) -> str:
    images, runs = (
        (
            "radiographs (MURA-v1.1) and lumbar MRI, their stores (mura.store, lumbar.store, crops.store), "
            f"made-up answers ({_MADE_UP})",
            "runs",
        )
        if lumbar
        else ("radiographs (MURA-v1.1), their store (mura.store)", "run")
    )
    return f"""
In {shown(out.resolve())}: phantom {images},
{runs} with reports (runs/abnormal-logistic/report.html), and embed.toml, which is why these need no options:

  embed info
  embed search --id {image_id} --where anatomy=XR_WRIST
  embed export out.h5

{_SIGLIP} is a small SigLIP with random weights, to try what a GPU and a real checkpoint do in earnest:

  embed finetune --encoder {_SIGLIP} --task abnormal --out encoders/demo --yes --epochs 3 --lr 3e-4 --then-probe"""
