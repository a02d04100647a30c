"""The web server: its socket, its patience with clients, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cli.page.guard import Door, Guard
from cli.page.routes import Page, build_app
from embedstore.errors import UsageError

LOOPBACK = "127.0.0.1"
# Of all clients together; what is answered at once is bounded below it (`cli.page.guard`).
_MOST_CONNECTIONS = 512
_LONGEST_HEADERS = 1 << 14
_END_S = 5
_IDLE_S = 15
_SWITCH_S = 0.0005
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


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any that is free.

    Raises
    ------
    UsageError
        If something else listens there, the port may not be used, or the host is no address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            raise UsageError(
                f"--port {port}: something on this machine listens there already; end it, or choose another port "
                "(--port 0 takes any that is free)"
            ) from error
        if code == errno.EACCES:
            raise UsageError(
                f"--port {port} may not be used by this user; choose one from 1024 on"
            ) from error
        raise UsageError(f"--host {host}, --port {port}: cannot be listened on: {error}") from error


def link(host: str, port: int, token: str) -> str:
    """Return the address to open, which lets in once."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/?token={token}"


def new_server(page: Page, door: Door, *, names: Sequence[str] = ()) -> uvicorn.Server:
    """Return the server, not yet started.

    Parameters
    ----------
    page
        What it shows.
    door
        Whom it lets in.
    names
        Further host names under which it may be asked for.
    """
    # Neither requests nor what is wrong with them are logged: they may hold what nobody else should read.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        Guard(build_app(page), door, names=names),
        http=StrictProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_END_S,
        h11_max_incomplete_event_size=_LONGEST_HEADERS,
    )
    return uvicorn.Server(config)


@contextlib.contextmanager
def closing(page: Page) -> Iterator[None]:
    """End threads and decoding processes with the block, however it ends."""
    try:
        yield
    finally:
        page.audits.close()
        page.workshop.close()
        page.pictures.close()


def serve(
    page: Page,
    sockets: Sequence[socket.socket],
    door: Door,
    *,
    names: Sequence[str],
    ready: Callable[[], None],
) -> None:
    """Serve until the process is asked to end.

    Parameters
    ----------
    page, door, names
        As `new_server`.
    sockets
        Which listen already.
    ready
        Called when the page can be opened.
    """
    server = new_server(page, door, names=names)
    usual = sys.getswitchinterval()
    # The loop that talks to clients waits for the thread that searches, 5 ms by default at each step: 50 clients got
    # 170 to 240 answers a second in place of 115 to 200, in turns.
    sys.setswitchinterval(_SWITCH_S)
    try:
        with closing(page):
            ready()
            server.run(sockets=list(sockets))
    finally:
        sys.setswitchinterval(usual)
