"""What the files of a table say themselves: their frames, and the modality against the one in the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.datasets.folder_summary import count_frames
from embedstore.errors import DataError
from embedstore.headers.dicom_headers import Kind
from embedstore.headers.file_frames import FileContent, frame_id
from embedstore.headers.modality_words import known_modalities, means_no_modality, modality_code
from embedstore.tables.cell_rules import text_of
from embedstore.tables.rows import Rows

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
    given = frame in rows.table.column_names
    if all(len(content.frames) == 1 for content in contents.values()):
        zero = pa.array(["0"]).take(pa.nulls(len(rows), pa.int8()).fill_null(0))
        return rows if given else rows.with_column(frame, pa.chunked_array([zero]))
    paths = rows.column(path).to_pylist()
    said = rows.column(frame).to_pylist() if given else [None] * len(rows)
    chosen = [
        (row, number)
        for row, own in enumerate(said)
        for number in (contents[paths[row]].frames if own is None else (int(own),))
    ]
    taken = rows.take(pa.array([row for row, _ in chosen]))
    if image_id in rows.table.column_names:
        ids = text_of(taken.column(image_id)).to_pylist()
        numbered = [
            frame_id(text, number) if said[row] is None and text is not None else text
            for text, (row, number) in zip(ids, chosen, strict=True)
        ]
        taken = taken.with_column(image_id, pa.chunked_array([pa.array(numbered, pa.string())]))
    return taken.with_column(frame, pa.chunked_array([pa.array([str(number) for _, number in chosen])]))


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
    rows: Rows, name: str | None, path: str, contents: Mapping[str, FileContent]
) -> Modalities:
    """Return the DICOM code of each row.

    Parameters
    ----------
    rows
        The table.
    name
        Its column of modalities, or None where it has none.
    path
        Its column of paths.
    contents
        Path -> what the file holds.

    Raises
    ------
    DataError
        If a cell is neither a DICOM code nor a known word for one; with the line and the list.
    """
    found = Modalities([None] * len(rows))
    if name is not None:
        cells = text_of(rows.column(name))
        counts = {entry["values"]: entry["counts"] for entry in cells.value_counts().to_pylist()}
        codes = {word: _code_of(rows, cells, word) for word in counts if word is not None}
        found.words.update(
            {(word, code): counts[word] for word, code in codes.items() if code and word != code}
        )
        found.codes = [None if word is None else codes[word] for word in cells.to_pylist()]
    own = {file: content.header.modality for file, content in contents.items() if content.header}
    if any(own.values()):
        for row, file in enumerate(rows.column(path).to_pylist()):
            header, said = own.get(file), found.codes[row]
            if header is not None and said is not None and header != said:
                found.contradictions.append(
                    f"{file}: {said} in the table, {header} in the file, which was followed"
                )
            found.codes[row] = header or said
    return found


def _code_of(rows: Rows, cells: pa.ChunkedArray, text: str) -> str | None:
    if means_no_modality(text):
        return None
    code = modality_code(text)
    if code is None:
        row = pc.index(cells, text).as_py()
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
