"""A request's body -> files in memory, piece by piece, within a limit that holds while they come."""

from __future__ import annotations

import json
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from cli.page.memory_files import MemoryFiles, TooMuch
from embedstore.errors import UsageError

# Of a request without files: 200,000 rows that were chosen on the map have 1.4 MB.
_JSON_BYTES = 1 << 21
_OPTIONS_BYTES = 1 << 14
# Borders and headers of the parts, beside what is in them.
_BETWEEN_BYTES = 1 << 20
_FILE, _OPTIONS = "file", "options"


async def read_json(request: Request) -> dict[str, Any]:
    """Return a request's JSON object.

    Raises
    ------
    TooMuch
        If it is larger than anything that the page asks.
    UsageError
        If it is none.
    """
    body = bytearray()
    _require_length(request, _JSON_BYTES)
    async for piece in request.stream():
        body += piece
        if len(body) > _JSON_BYTES:
            raise TooMuch(f"a question may have {_JSON_BYTES:,} bytes")
    return _object(bytes(body))


async def receive_files(request: Request, files: MemoryFiles) -> dict[str, Any]:
    """Take the files of a multipart form, and return the JSON object of its part ``options``.

    Names of files are not read: they belong to the sender.

    Raises
    ------
    TooMuch
        As soon as there is more than `files` takes.
    UsageError
        If the form is malformed, cut off, or holds no file.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not parameters.get(b"boundary"):
        raise UsageError("files must come as multipart/form-data")
    longest = files.limit_bytes + _BETWEEN_BYTES
    _require_length(request, longest)
    form = _Form(files)
    received = 0
    try:
        parser = MultipartParser(parameters[b"boundary"], form.callbacks())  # type: ignore[arg-type]
        async for piece in request.stream():
            received += len(piece)
            if received > longest:
                raise TooMuch(f"what is sent may have {files.limit_bytes / 1e6:,.0f} MB; this is more")
            parser.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise UsageError("the form is malformed") from error
    except ClientDisconnect as error:
        raise UsageError("the sender has gone") from error
    if not form.ended:
        raise UsageError("the form is cut off")
    if not files.paths:
        raise UsageError("the form holds no file")
    return _object(bytes(form.options)) if form.options else {}


class _Form:
    """What the parser calls: parts named ``file`` become files, one named ``options`` is kept, others are refused."""

    def __init__(self, files: MemoryFiles) -> None:
        self.options = bytearray()
        self.ended = False
        self._files = files
        self._part = ""
        self._field = bytearray()
        self._value = bytearray()

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._part = ""

    def _header(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, parameters = parse_options_header(bytes(self._value))
            self._part = parameters.get(b"name", b"").decode("latin-1")
        self._field.clear()
        self._value.clear()

    def _headers(self) -> None:
        if self._part == _FILE:
            self._files.begin()
        elif self._part != _OPTIONS:
            raise UsageError("the form has a part that is neither file nor options")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part == _FILE:
            self._files.write(data[start:end])
            return
        self.options += data[start:end]
        if len(self.options) > _OPTIONS_BYTES:
            raise TooMuch(f"options may have {_OPTIONS_BYTES:,} bytes")

    def _end(self) -> None:
        self.ended = True


def _require_length(request: Request, most: int) -> None:
    """Refuse a body by the length that it states, before any of it is read."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > most:
        raise TooMuch(f"what is sent may have {most / 1e6:,.1f} MB; this is more")


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError("the request is not JSON") from error
    if not isinstance(found, dict):
        raise UsageError("the request must be a JSON object")
    return found
