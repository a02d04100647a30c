"""``embed serve``: the page, on this machine."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from types import FrameType

import click

from cli.completion import complete_runs
from cli.jobs.extract_store import default_workers
from cli.key_options import key_option
from cli.options import ProjectCommand, is_typed, plural, print_notice, project_of
from cli.page.catalog import Catalog, find_runs, find_stores
from cli.project import Project, shown
from cli.studying.predict_options import ProjectData
from embedstore.errors import DataError, MissingDependency, UsageError

PORT = 8765
_MOST_WORKERS = 4
_LOCAL = ("127.0.0.1", "::1", "localhost")
_WHO = {
    True: "and this machine alone may ask",
    False: "and other machines may ask, unencrypted: whoever can listen on the network sees what it shows",
}
_NEEDED = ("starlette", "uvicorn", "python_multipart")


@click.command(name="serve", cls=ProjectCommand)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A store to show, the first one first; repeatable. Others that lie beside embed.toml are shown too.",
)
@click.option(
    "--runs",
    "run_places",
    type=click.Path(path_type=Path),
    multiple=True,
    shell_complete=complete_runs,
    help="A run, or a folder of runs; repeatable.  [default: runs beside embed.toml]",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes a free one."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Any other than the default lets other machines ask; the link still opens once.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOSTNAME",
    help="With --host: a name under which this machine is asked for; others are refused. Repeatable.",
)
@click.option(
    "--tsne",
    is_flag=True,
    help="First compute a t-SNE map of each store that has none, and keep it beside it.",
)
@click.option(
    "--max-upload-mb",
    type=click.IntRange(1, 8192),
    default=512,
    show_default=True,
    help="Of the files that are sent at once, archives unpacked.",
)
@click.option(
    "--levels",
    type=click.Path(path_type=Path),
    help="Of runs over lumbar crops, the localiser's run.  [default: found beside the run or by embed.toml]",
)
@click.option("--encoder", help="Folder or hub id of the store's encoder.  [default: its registered name]")
@click.option("--device", default="auto", show_default=True, help="Device of the encoder.")
@key_option
@click.pass_context
def command(
    context: click.Context,
    /,
    *,
    store: tuple[Path, ...],
    run_places: tuple[Path, ...],
    port: int,
    host: str,
    names: tuple[str, ...],
    tsne: bool,
    max_upload_mb: int,
    levels: Path | None,
    encoder: str | None,
    device: str,
    key_file: Path | None,
) -> None:
    """Show stores on a page: drop an image to get an answer and similar cases, look at a map, read reports.

    It answers this machine alone, and whoever opened its link. What is dropped stays in memory.

    \b
    Example:
      embed serve
      embed serve --port 0 --tsne
    """
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingDependency("embed serve needs a web server: pip install 'embedstore[serve]'")
    if names and not is_typed(context, "host"):
        raise UsageError("--name says how other machines ask for this one; it needs --host")
    for place in run_places:
        if not place.exists():
            raise DataError(f"--runs: {shown(place)} does not exist")
    project = project_of(context)
    runs = [Path(project.settings.get("runs", project.folder / "runs"))]
    catalog = Catalog(
        stores=find_stores(store, project.folder),
        runs=find_runs(run_places or runs),
        project=_data_of(project),
        key_file=key_file or _key_of(project),
        levels=levels if is_typed(context, "levels") else None,
        level_places=runs if levels is None or is_typed(context, "levels") else [levels, *runs],
        device=device,
        # That of embed.toml is one store's; each store knows its own.
        encoder=encoder if is_typed(context, "encoder") else None,
        workers=min(_MOST_WORKERS, default_workers()),
    )
    _serve(catalog, host=host, port=port, names=names, tsne=tsne, limit_bytes=max_upload_mb * 1_000_000)


def _serve(
    catalog: Catalog, *, host: str, port: int, names: tuple[str, ...], tsne: bool, limit_bytes: int
) -> None:
    from cli.page.guard import Door
    from cli.page.routes import new_page
    from cli.page.server import LOOPBACK, bind, link, serve
    from cli.page.store_map import cached_tsne, compute_tsne

    with bind(host, port) as listening:
        port = listening.getsockname()[1]
        page = new_page(catalog, limit_bytes=limit_bytes)
        for name, path in catalog.stores.items():
            served = page.shelf.served(name)
            if tsne and cached_tsne(served) is None:
                print_notice(f"{name}: t-SNE of {len(served.rows):,} images ...")
                print_notice(f"{name}: t-SNE kept in {shown(compute_tsne(served))}")
            click.echo(f"{shown(path)}: {plural(len(served.with_vector), 'image')}")
        shown_host = names[0] if names else LOOPBACK if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared

        def say_link(token: str) -> None:
            click.echo(f"for another browser: {link(shown_host, port, token)}")

        door = Door(port, say_link)

        def ready() -> None:
            click.echo(f"open {link(shown_host, port, door.token)}")
            click.echo(f"the link opens once, {_WHO[host in _LOCAL]}; Ctrl-C ends")
            click.echo("Research software, not a medical device.")

        # The server catches both signals while it runs, ends cleanly, and then passes them on.
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            serve(page, [listening], door, names=names, ready=ready)
        finally:
            signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _data_of(project: Project) -> ProjectData:
    settings = project.settings
    root = settings.get("root")
    return ProjectData(
        folder=project.folder,
        dataset=settings.get("dataset"),
        root=None if root is None else Path(root),
        options=settings.get("options", {}),
    )


def _key_of(project: Project) -> Path | None:
    of_data = project.settings.get("options", {}).get("key_file")
    return Path(of_data) if of_data and Path(of_data).is_file() else None
