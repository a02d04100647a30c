"""What was found as pictures, side by side: a PNG file, or a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.searching.hit_words import labels_in_words, probability_in_words
from cli.searching.search_options import STUDY
from cli.searching.search_store import SearchHit, SearchResult, StoreSearch
from embedstore.decoding.decode import DecodeJob
from embedstore.errors import UsageError
from embedstore.files import write_durable
from embedstore.headers.file_frames import split_frame
from embedstore.queries.thumbnails import SIZE_PX, jobs_of_units, thumbnails_of_jobs
from heads.reporting.cases_page import Case, render_cases

_ENDINGS = (".png", ".html")
_COLUMNS = 5
_EDGE_PX = 8
_LINE_PX = 14
_LINES = 7
_FONT_PX = 11
_QUERIES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The pictures of a search.

    Parameters
    ----------
    asked, found
        What was searched for, a few of them, and what was found.
    phantom
        Whether a computer drew all images of the store.
    """

    asked: Sequence[Case]
    found: Sequence[Case]
    phantom: bool = False

    @property
    def gone(self) -> int:
        """How many pictures are missing, because their files have moved."""
        return sum(case.picture is None for case in (*self.asked, *self.found))


def require_sheet(path: Path) -> Path:
    """Refuse a file that would be neither PNG nor HTML, before anything is searched; raises UsageError."""
    if path.suffix.lower() not in _ENDINGS:
        raise UsageError(f"--sheet: {path} must end in {' or '.join(_ENDINGS)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--sheet: the folder {path.parent} does not exist; make it first")
    return path


def save_sheet(path: Path, search: StoreSearch, result: SearchResult) -> Sheet:
    """Write the pictures of a search, by the ending of `path`; an image whose file has moved is an empty square."""
    sheet = sheet_of(search, result)
    if path.suffix.lower() == ".html":
        title = f"The most similar {'studies' if result.group == STUDY else 'images'}: {len(result.hits):,}"
        page = render_cases(title, sheet.asked, sheet.found, phantom=sheet.phantom)
        write_durable(path, page.encode(), label="sheet")
    else:
        write_durable(path, sheet_png(sheet), label="sheet")
    return sheet


def sheet_of(search: StoreSearch, result: SearchResult) -> Sheet:
    """Return the pictures of a search with what stands below each."""
    # Of many images that were searched for together, those that found something.
    found_by = {hit.query for hit in result.hits}
    shown = sorted(result.queries, key=lambda query: query.name not in found_by)[:_QUERIES_SHOWN]
    stored = [query.image_id for query in shown if query.image_id]
    jobs = jobs_of_units(
        [search.store], [*stored, *(hit.image_id for hit in result.hits)], "image", key=search.tools.key
    )
    for query in shown:
        file, frame = split_frame(Path(query.name))
        if not query.image_id and file.is_file():
            jobs[query.name] = DecodeJob(str(file.absolute()), frame)
    pictures = thumbnails_of_jobs(jobs)
    asked = [Case(picture=pictures.get(query.image_id or query.name), lines=(query.name,)) for query in shown]
    found = [Case(picture=pictures.get(hit.image_id), lines=lines_of(hit, result)) for hit in result.hits]
    return Sheet(asked=asked, found=found, phantom=all(one.phantom for one in search.store.sources))


def lines_of(hit: SearchHit, result: SearchResult) -> tuple[str, ...]:
    """Return what stands below the picture of a hit: cosine, study or image, labels, probability."""
    of_study = result.group == STUDY and hit.unit_id != hit.image_id
    name = (
        f"{hit.unit_id} ({hit.images:,} image{'' if hit.images == 1 else 's'})" if of_study else hit.unit_id
    )
    lines = (f"cosine {hit.cosine:.4f}", name, labels_in_words(hit), probability_in_words(hit))
    return tuple(line for line in lines if line)


def sheet_png(sheet: Sheet) -> bytes:
    """Return the pictures as a PNG file: what was searched for in the first row."""
    from PIL import Image, ImageDraw, ImageFont

    rows = [
        cases[start : start + _COLUMNS]
        for cases in (sheet.asked, sheet.found)
        for start in range(0, len(cases), _COLUMNS)
    ]
    of_asked = -(-len(sheet.asked) // _COLUMNS)
    cell, height = SIZE_PX + 2 * _EDGE_PX, SIZE_PX + 2 * _EDGE_PX + _LINES * _LINE_PX
    canvas = Image.new("RGB", (_COLUMNS * cell, len(rows) * height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_PX)
    for row, cases in enumerate(rows):
        for column, case in enumerate(cases):
            left, top = column * cell + _EDGE_PX, row * height + _EDGE_PX
            frame = (left - 2, top - 2, left + SIZE_PX + 1, top + SIZE_PX + 1)
            draw.rectangle(frame, fill="black", outline="#b5500b" if row < of_asked else "#6b7480", width=2)
            if case.picture is not None:
                canvas.paste(Image.open(io.BytesIO(case.picture)), (left, top))
            lines = ["searched for", *case.lines] if row < of_asked else case.lines
            wrapped = [piece for line in lines for piece in _wrapped(line, font)]
            for place, line in enumerate(wrapped[:_LINES]):
                draw.text((left, top + SIZE_PX + 4 + place * _LINE_PX), line, fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _wrapped(line: str, font: Any) -> list[str]:
    """Cut a line to what stands below a picture, behind a blank or a stroke where there is one."""
    wrapped = []
    while font.getlength(line) > SIZE_PX:
        fits = next(count for count in range(len(line), 0, -1) if font.getlength(line[:count]) <= SIZE_PX)
        cut = max((line.rfind(mark, 0, fits) + 1 for mark in " /_-,"), default=0) or fits
        wrapped.append(line[:cut])
        line = line[cut:]
    return [*wrapped, line]
