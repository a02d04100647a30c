"""The page's addresses: each takes names, row numbers and JSON, calls one thing, and answers with bytes or JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cli.page.answering import Desk
from cli.page.auditing import Audits
from cli.page.cases import find_cases
from cli.page.catalog import Catalog, run_document
from cli.page.guard import SlowClient
from cli.page.memory_files import MemoryFiles, TooMuch
from cli.page.pictures import Pictures
from cli.page.served_store import Shelf
from cli.page.store_map import PCA, TSNE, cached_tsne, colourings, named, principal_positions
from cli.page.uploads import read_json, receive_files
from cli.page.workshop import Busy, Workshop
from cli.wording import for_command_line
from embedstore.errors import EmbedError
from heads.reporting.page import REPORT_FILE
from heads.statistics.metrics import metric_label

SEARCH, PICTURES, SENDING, MAP = "search", "pictures", "sending", "map"
# Kind of work -> threads, and how many may wait.
PLACES = {SEARCH: (1, 96), PICTURES: (2, 256), SENDING: (1, 3), MAP: (1, 8)}
_KINDS = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
# A report draws itself: it has styles and pictures inside, no script, and may do nothing else.
_REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)
_MOST_LISTED = 200_000
_BYTES = "application/octet-stream"

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, eq=False)
class Page:
    """Everything behind the addresses.

    Parameters
    ----------
    catalog
        What may be looked at.
    limit_bytes
        Of what is sent at once.
    """

    catalog: Catalog
    shelf: Shelf
    pictures: Pictures
    desk: Desk
    workshop: Workshop
    audits: Audits
    limit_bytes: int

    async def look(self, request: Request) -> Response:
        """Return the page itself."""
        return HTMLResponse(_page())

    async def contents(self, request: Request) -> Response:
        """Return what there is: stores with their runs, columns and tasks."""
        return JSONResponse(await self.workshop.run(SEARCH, self._contents))

    async def search(self, request: Request) -> Response:
        """Return the nearest cases."""
        question = await read_json(request)
        found = await self.workshop.run(SEARCH, find_cases, self.shelf, self.desk, question)
        return JSONResponse(found)

    async def send(self, request: Request) -> Response:
        """Take files, and return answers."""
        self.workshop.take(SENDING)
        try:
            with MemoryFiles(self.limit_bytes) as files:
                options = await receive_files(request, files)
                answer = await self.workshop.carry_out(SENDING, self.desk.answer, files, options)
        finally:
            self.workshop.leave(SENDING)
        return JSONResponse(answer)

    async def thumbnail(self, request: Request) -> Response:
        """Return the picture of a row."""
        return await self._picture_of_row(request, "small")

    async def image(self, request: Request) -> Response:
        """Return the larger picture of a row."""
        return await self._picture_of_row(request, "large")

    async def grey(self, request: Request) -> Response:
        """Return the grey values of a row's DICOM file."""
        found = await self.workshop.run(PICTURES, self._grey, *_row(request))
        return Response(found, media_type=_BYTES)

    async def sent_picture(self, request: Request) -> Response:
        """Return a picture, or the grey values, of what was sent."""
        picture = self.desk.picture(request.path_params["sent"], request.path_params["number"])
        what = request.path_params["what"]
        if what == "grey":
            return Response(picture.grey, media_type=_BYTES, status_code=200 if picture.grey else 404)
        return Response({"small": picture.small, "large": picture.large}[what], media_type="image/jpeg")

    async def map(self, request: Request) -> Response:
        """Return what the map of a store offers."""
        return JSONResponse(await self.workshop.run(MAP, self._map, *_map_of(request)))

    async def points(self, request: Request) -> Response:
        """Return each point's row (uint32) and then x and y (float32), little-endian."""
        found = await self.workshop.run(MAP, self._points, *_map_of(request), request.path_params["way"])
        return Response(found, media_type=_BYTES)

    async def colours(self, request: Request) -> Response:
        """Return each point's colour code (uint8)."""
        store, run = _map_of(request)
        found = await self.workshop.run(MAP, self._colours, store, run, request.path_params["number"])
        return Response(found, media_type=_BYTES)

    async def rows(self, request: Request) -> Response:
        """Return the facts of rows that were chosen on the map."""
        question = await read_json(request)
        return JSONResponse(await self.workshop.run(SEARCH, self._rows, question))

    async def audit(self, request: Request) -> Response:
        """Return where the audit of a store is, and what it found."""
        return JSONResponse(await self.workshop.run(SEARCH, self.audits.state, request.path_params["store"]))

    async def begin_audit(self, request: Request) -> Response:
        """Begin the audit of a store."""
        self.audits.begin(request.path_params["store"])
        return JSONResponse({"state": "working", "done": 0, "total": 0})

    async def words(self, request: Request) -> Response:
        """Say whether a store can be searched by words: its encoder is asked, which may take a while."""
        served = self.shelf.served(request.path_params["store"])
        return JSONResponse({"words": await self.workshop.run(MAP, lambda: served.has_words)})

    async def run(self, request: Request) -> Response:
        """Return the metrics of a run."""
        return JSONResponse(_metrics(self.catalog, request.path_params["run"]))

    async def report(self, request: Request) -> Response:
        """Return a run's own report."""
        path = self.catalog.run(request.path_params["run"]) / REPORT_FILE
        if not path.is_file():
            return JSONResponse({"error": "this run has no report; `embed report RUN` draws it"}, 404)
        return HTMLResponse(path.read_bytes(), headers={"content-security-policy": _REPORT_POLICY})

    async def _picture_of_row(self, request: Request, size: str) -> Response:
        store, row = _row(request)
        found = await self.workshop.run(PICTURES, self._jpeg, store, row, size)
        return Response(found, media_type="image/jpeg")

    def _contents(self) -> dict[str, Any]:
        return {
            "stores": [self._store(name) for name in self.catalog.stores],
            "limit_bytes": self.limit_bytes,
        }

    def _store(self, name: str) -> dict[str, Any]:
        served = self.shelf.served(name)
        store = served.store
        own, others = self.catalog.runs_of(store.path, store.identity.sha256)
        return {
            "name": name,
            "images": len(served.with_vector),
            "studies": len(np.unique(served.studies[served.with_vector])),
            "encoder": store.identity.encoder,
            "phantom": any(source.phantom for source in store.sources),
            "first_row": int(served.with_vector[0]) if len(served.with_vector) else None,
            "pictured": len(served.with_vector) > 0 and served.is_there(int(served.with_vector[0])),
            "choices": served.choices,
            "tasks": [{"name": task.name, "targets": len(task.targets)} for task in served.tasks.values()],
            "runs": [
                _described(self.catalog, run) | {"own": place < len(own)}
                for place, run in enumerate(own + others)
            ],
        }

    def _jpeg(self, store: str, row: int, size: str) -> bytes:
        served = self.shelf.served(store)
        row = served.require_row(row)
        return self.pictures.jpeg(served.job(row), size, key=(str(served.store.path), row))

    def _grey(self, store: str, row: int) -> bytes:
        served = self.shelf.served(store)
        return self.pictures.grey(served.job(served.require_row(row)))

    def _map(self, store: str, run: str) -> dict[str, Any]:
        served = self.shelf.served(store)
        ways = [PCA, *([TSNE] if cached_tsne(served) is not None else [])]
        found = colourings(served, self.shelf.run(run) if run else None)
        return {"points": len(served.rows), "ways": ways, "colours": named(found)}

    def _points(self, store: str, run: str, way: str) -> bytes:
        del run
        served = self.shelf.served(store)
        positions = cached_tsne(served) if way == TSNE else principal_positions(served)
        if positions is None:
            raise EmbedError("this map was not computed: embed serve --tsne")
        return served.rows.astype("<u4").tobytes() + np.ascontiguousarray(positions, "<f4").tobytes()

    def _colours(self, store: str, run: str, number: int) -> bytes:
        found = colourings(self.shelf.served(store), self.shelf.run(run) if run else None)
        if not 0 <= number < len(found):
            raise EmbedError("there is no such colour")
        return found[number].codes.tobytes()

    def _rows(self, question: Mapping[str, Any]) -> dict[str, Any]:
        served = self.shelf.served(question.get("store"))
        given = question.get("rows")
        if not isinstance(given, list) or len(given) > _MOST_LISTED:
            raise EmbedError("rows must be a list")
        rows = [served.require_row(row) for row in given]
        if question.get("brief") is True:
            return {
                "images": _listed(served.store.image_ids[rows].tolist(), served.studies[rows].tolist(), rows)
            }
        return {"images": [served.facts(row) for row in rows[:200]]}


def build_app(page: Page) -> Starlette:
    """Return the application: every address that there is."""
    store = "/stores/{store}"
    routes = [
        Route("/", page.look),
        Route("/contents", _answered(page.contents)),
        Route("/search", _answered(page.search), methods=["POST"]),
        Route("/send", _answered(page.send), methods=["POST"]),
        Route("/rows", _answered(page.rows), methods=["POST"]),
        Route(f"{store}/rows/{{row:int}}/small", _answered(page.thumbnail)),
        Route(f"{store}/rows/{{row:int}}/large", _answered(page.image)),
        Route(f"{store}/rows/{{row:int}}/grey", _answered(page.grey)),
        Route("/sent/{sent}/{number:int}/{what}", _answered(page.sent_picture)),
        Route(f"{store}/map", _answered(page.map)),
        Route(f"{store}/map/points/{{way}}", _answered(page.points)),
        Route(f"{store}/map/colours/{{number:int}}", _answered(page.colours)),
        Route(f"{store}/audit", _answered(page.audit)),
        Route(f"{store}/audit", _answered(page.begin_audit), methods=["POST"]),
        Route(f"{store}/words", _answered(page.words)),
        Route("/runs/{run}", _answered(page.run)),
        Route("/runs/{run}/report", _answered(page.report)),
    ]
    routes += [Route(f"/static/{name}", _constant(*content)) for name, content in _static().items()]
    return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found, Exception: _defect})


def new_page(catalog: Catalog, *, limit_bytes: int) -> Page:
    """Return what is behind the addresses, with nothing opened yet."""
    shelf, pictures = Shelf(catalog), Pictures()
    return Page(catalog, shelf, pictures, Desk(shelf, pictures), Workshop(PLACES), Audits(shelf), limit_bytes)


def _answered(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint that says what is wrong with a question."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Busy as error:
            return JSONResponse({"error": str(error)}, 503, headers={"retry-after": "2"})
        except TooMuch as error:
            return JSONResponse({"error": str(error)}, 413, headers={"connection": "close"})
        except EmbedError as error:
            return JSONResponse({"error": for_command_line(str(error))}, 400)

    return answer


async def _not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "there is nothing here"}, getattr(error, "status_code", 404))


async def _defect(request: Request, error: Exception) -> Response:
    """Return what is said of a defect of the page; the guard then tells where it was."""
    slow = isinstance(error, SlowClient)
    why = "the request comes too slowly" if slow else f"the page has a defect: {type(error).__name__}"
    return JSONResponse({"error": why}, 408 if slow else 500, headers={"connection": "close"})


def _row(request: Request) -> tuple[str, int]:
    return request.path_params["store"], request.path_params["row"]


def _map_of(request: Request) -> tuple[str, str]:
    return request.path_params["store"], request.query_params.get("run", "")


def _described(catalog: Catalog, name: str) -> dict[str, Any]:
    """Return what the page needs to know of a run before it is opened."""
    document = run_document(catalog.run(name))
    task = document["task"]
    blocks = (document.get("inputs") or {}).get("blocks") or {}
    return {
        "name": name,
        "task": task["name"],
        "unit": task["unit"],
        "targets": len(task["targets"]),
        "classes": task["classes"],
        "head": (document.get("settings") or {}).get("head", ""),
        "columns": dict(zip(blocks.get("columns", ()), blocks.get("levels", ()), strict=False)),
    }


def _metrics(catalog: Catalog, name: str) -> dict[str, Any]:
    document = run_document(catalog.run(name))
    counts = document.get("counts") or {}
    return {
        "name": name,
        "run_id": str(document.get("run_id", ""))[:12],
        "metrics": [
            *_rsna_score(document),
            *(
                {
                    "name": metric_label(metric),
                    **{key: found.get(key) for key in ("value", "low", "high", "n")},
                }
                for metric, found in (document.get("metrics") or {}).items()
                if isinstance(found, dict)
            ),
        ],
        "fitted": counts.get("units_fitted"),
        "evaluated": counts.get("units_evaluated"),
        "warnings": document.get("warnings") or [],
        "report": (catalog.run(name) / REPORT_FILE).is_file(),
    }


def _rsna_score(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the competition's score of a lumbar run as the first of its metrics."""
    found = (document.get("rsna_score") or {}).get("rsna_score")
    if found is None:
        return []
    numbers = {key: found.get(key) for key in ("value", "low", "high", "n")}
    return [{"name": "RSNA 2024 lumbar score (smaller is better)", **numbers}]


def _listed(ids: Sequence[str], studies: Sequence[str], rows: Sequence[int]) -> list[list[Any]]:
    return [[row, str(image_id), str(study)] for row, image_id, study in zip(rows, ids, studies, strict=True)]


def _page() -> str:
    environment = Environment(
        loader=PackageLoader("cli.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render()


def _static() -> dict[str, tuple[bytes, str]]:
    """Return the files of the page by name, read once; an address is one of these names or nothing."""
    folder = resources("cli.page") / "static"
    found = {}
    for entry in folder.iterdir():
        kind = _KINDS.get(entry.name.rpartition(".")[2])
        if kind is not None:
            found[entry.name] = (entry.read_bytes(), kind)
    return found


def _constant(content: bytes, kind: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer
