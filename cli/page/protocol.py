"""HTTP/1.1 for clients that cannot be trusted to be quick: whoever stalls is dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# For all headers of a request, from their first byte (or the connection's beginning) to their last.
HEADERS_S = 10.0
# Within which a reader that has stopped must go on.
STALLED_S = 20.0


class StrictProtocol(H11Protocol):
    """uvicorn's, with an end to headers that never end and to answers that nobody reads."""

    _headers_due: asyncio.TimerHandle | None = None
    _reader_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the wait for headers ends with the request that they belong to."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._await_headers()
        else:
            self._forget("_headers_due")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget("_headers_due")
        self._forget("_reader_due")
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the reader is behind."""
        super().pause_writing()
        self._reader_due = self.loop.call_later(STALLED_S, self._drop)

    def resume_writing(self) -> None:
        """Note that the reader goes on."""
        self._forget("_reader_due")
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have come already."""
        super().on_response_complete()
        if self.transport.is_closing():
            # What is left is flushed first; a reader that never reads it would keep the connection.
            self.loop.call_later(STALLED_S, self._drop)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(STALLED_S, self._drop)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Refuse: there are no web sockets here."""
        self._drop()

    def _await_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(HEADERS_S, self._drop)

    def _forget(self, timer: str) -> None:
        due: asyncio.TimerHandle | None = getattr(self, timer)
        if due is not None:
            due.cancel()
            setattr(self, timer, None)

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()
