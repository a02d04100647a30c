"""What the files of a table say themselves: their frames, and the modality against the one in the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from embedstore.datasets.folder_summary import count_frames
from embedstore.errors import DataError
from embedstore.headers.dicom_headers import Kind
from embedstore.headers.file_frames import FileContent, frame_id
from embedstore.headers.modality_words import known_modalities, means_no_modality, modality_code
from embedstore.tables.rows import Cell, Rows, as_text

_SHOWN_WORDS = 5


def one_row_per_frame(
    rows: Rows, contents: Mapping[str, FileContent], *, path: str, frame: str, image_id: str
) -> Rows:
    """Return the rows with one for each frame of a file whose row does not say which frame it means.

    Parameters
    ----------
    rows
        The table.
    contents
        Path -> what the file holds.
    path, frame, image_id
        Names of the table's columns; those of `frame` and `image_id` may not exist.
    """
    names = [str(as_text(cell)) for cell in rows.columns[path]]
    named = rows.columns.get(frame) or [None] * len(rows)
    chosen = [
        (row, number)
        for row, (name, said) in enumerate(zip(names, named, strict=True))
        for number in (contents[name].frames if said is None else (0,))
    ]
    taken = rows if len(chosen) == len(rows) else rows.take(pa.array([row for row, _ in chosen]))
    frames = [number if named[row] is None else as_text(named[row]) for row, number in chosen]
    ids = rows.columns.get(image_id)
    if ids is not None and any(number for row, number in chosen if named[row] is None):
        texts = [as_text(ids[row]) for row, _ in chosen]
        numbered = [
            frame_id(text, number) if named[row] is None and text is not None else text
            for text, (row, number) in zip(texts, chosen, strict=True)
        ]
        taken = taken.with_column(image_id, pa.chunked_array([pa.array(numbered, pa.string())]))
    return taken.with_column(frame, pa.chunked_array([pa.array(map(str, frames), pa.string())]))


@dataclass
class Modalities:
    """The modality of each row, and what was made of the table's words to get there.

    A file's own header wins: it steers how its pixels are shown.
    """

    codes: list[str | None] = field(default_factory=list)
    words: Counter[tuple[str, str]] = field(default_factory=Counter)
    contradictions: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, str | int]:
        """Say what was read as what, and where header and table differ."""
        summary: dict[str, str | int] = {}
        if self.words:
            shown = [
                f"{word!r} as {code} {count:,}"
                for (word, code), count in self.words.most_common(_SHOWN_WORDS)
            ]
            more = ", ..." if len(self.words) > _SHOWN_WORDS else ""
            summary["words read as modality"] = ", ".join(shown) + more
        if self.contradictions:
            summary["modality contradicts the header"] = (
                f"{len(self.contradictions):,} images, such as {self.contradictions[0]}"
            )
        return summary


def read_modalities(
    rows: Rows, cells: Sequence[Cell] | None, paths: Sequence[Cell], contents: Mapping[str, FileContent]
) -> Modalities:
    """Return the DICOM code of each row.

    Parameters
    ----------
    rows
        The table, for messages.
    cells
        Its column of modalities, or None where it has none.
    paths
        The path of each row.
    contents
        Path -> what the file holds.

    Raises
    ------
    DataError
        If a cell is neither a DICOM code nor a known word for one; with the line and the list.
    """
    found = Modalities()
    for row, (cell, path) in enumerate(zip(cells or [None] * len(paths), paths, strict=True)):
        text = as_text(cell) or ""
        said = _code_of(rows, row, text)
        header = contents[str(path)].header
        own = header.modality if header else None
        if said is not None and text != said:
            found.words[text, said] += 1
        if said is not None and own is not None and own != said:
            found.contradictions.append(f"{path}: {said} in the table, {own} in the file, which was followed")
        found.codes.append(own or said)
    return found


def _code_of(rows: Rows, row: int, text: str) -> str | None:
    if means_no_modality(text):
        return None
    code = modality_code(text)
    if code is None:
        raise DataError(
            f"{rows.where(row)}: modality must be {known_modalities()}, or empty; found {text!r}. It steers how "
            "pixels are shown. Write the code; a column that means something else can be renamed."
        )
    return code


def describe_contents(contents: Mapping[str, FileContent]) -> dict[str, str | int]:
    """Count files of several frames, and those that hold no image: they stay records and fail by name."""
    summary = count_frames(len(content.frames) for content in contents.values())
    without = {
        path: content.scanned.kind
        for path, content in contents.items()
        if content.scanned and content.scanned.kind is not Kind.IMAGE
    }
    for kind, count in Counter(without.values()).items():
        first = next(path for path, found in without.items() if found is kind)
        summary[f"files without an image, {kind}"] = f"{count:,}, such as {first}"
    return summary
