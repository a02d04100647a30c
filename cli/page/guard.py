"""What stands before every answer: whose link, host name, page and session; and what every answer says of itself."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Browsers that may look at once; the oldest has to open a new link when there are more.
_MOST_SESSIONS = 32
_SAFE = ("GET", "HEAD")
# Requests being answered at once; beyond them the next is sent away.
MOST_REQUESTS = 128
# Between two pieces of a request's body, and what a body may take: a beginning, and then so many bytes a second.
_PIECE_S = 15.0
_BODY_S = 20.0
_BYTES_PER_S = 64_000
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "x-frame-options": "DENY",
}
# The cookie is strict: a redirect would arrive without it where the link was clicked on another site's page.
_WELCOME = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'
    '<link rel="icon" href="/static/icon.svg"><title>embedstore</title><p><a href="/">Open the page</a></p></html>'
)


@dataclass(eq=False)
class Door:
    """Exchanges a link's token for a session, once, and then makes the next link.

    Parameters
    ----------
    port
        Of the page: cookies do not tell ports apart, so it is part of their name.
    say_link
        Is told the token of each new link.
    """

    port: int
    say_link: Callable[[str], None] = lambda token: None
    _token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    _sessions: list[str] = field(default_factory=list)

    @property
    def token(self) -> str:
        """Of the link that opens."""
        return self._token

    @property
    def cookie(self) -> str:
        """Name of the cookie."""
        return f"embedstore-page-{self.port}"

    def exchange(self, token: str) -> str | None:
        """Return a new session for the token of the current link, which is then used up; None for any other."""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        session = secrets.token_urlsafe(32)
        self._sessions = [*self._sessions[-_MOST_SESSIONS + 1 :], session]
        self._token = secrets.token_urlsafe(32)
        self.say_link(self._token)
        return session

    def knows(self, session: str) -> bool:
        """Say whether a cookie's value is one of the sessions."""
        # All are compared, so that the time tells nothing.
        asked = session.encode(errors="replace")
        return sum(hmac.compare_digest(asked, own.encode()) for own in self._sessions) > 0


class SlowClient(Exception):
    """A request's body comes too slowly."""


class Guard:
    """Lets through what comes from the page itself, with a session.

    Parameters
    ----------
    app
        What answers.
    door
        Knows links and sessions.
    names
        Host names under which the page may be asked for, beside the address that a connection reached: a name that
        points here from elsewhere (DNS rebinding) is none of them.
    """

    def __init__(self, app: ASGIApp, door: Door, *, names: Iterable[str] = ()) -> None:
        self._app = app
        self._door = door
        self._names = {"localhost", *(name.lower() for name in names)}
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = _Sender(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            refusal.headers.setdefault("connection", "close")
            await refusal(scope, receive, sender)
            return
        self._requests += 1
        try:
            await self._app(scope, _Patience(receive), sender)
        except SlowClient:
            pass  # it was told (`cli.page.routes`)
        except Exception as error:  # noqa: BLE001 - a defect: said without what it was about, and nobody else falls
            _tell_defect(error)
        finally:
            self._requests -= 1

    def _refusal(self, scope: Scope) -> Response | None:
        headers = _headers_of(scope)
        host = headers.get("host", [])
        if len(host) != 1 or not self._is_ours(host[0], scope):
            return _no(421, "this host name is not that of the page")
        if scope["method"] not in (*_SAFE, "POST"):
            return _no(405, "only GET, HEAD and POST are answered")
        elsewhere = self._comes_from_elsewhere(scope, headers, host[0])
        if elsewhere:
            return _no(403, elsewhere)
        if scope["path"] == "/" and scope["method"] == "GET" and scope["query_string"]:
            return self._welcome(scope, headers)
        if not self._door.knows(_session(headers, self._door.cookie)):
            return _no(401, "open the link that `embed serve` printed; each opens once", headers)
        if self._requests >= MOST_REQUESTS:
            return _no(503, "too many requests at once; try again")
        return None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """Say whether a Host header names this page: a known name, or the address that was reached, and the port."""
        address, port = scope["server"] or ("", None)
        name, _, stated = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not name:
            name, stated = host, ""
        if (stated or "80") != str(port):
            return False
        name = name.lower()
        return name in self._names or _same_address(name.strip("[]"), address)

    def _comes_from_elsewhere(self, scope: Scope, headers: dict[str, list[str]], host: str) -> str:
        """Return why a request is not one of the page's own; ``""`` if it is."""
        site = headers.get("sec-fetch-site", [])
        is_link = scope["path"] == "/" and headers.get("sec-fetch-mode", ["navigate"]) == ["navigate"]
        if scope["method"] in _SAFE:
            if site not in ([], ["same-origin"], ["none"]) and not is_link:
                return "another site's page may not ask"
            return ""
        if headers.get("origin") != [f"{scope['scheme']}://{host}"]:
            return "requests that do something must come from the page itself (Origin)"
        if site not in ([], ["same-origin"]):
            return "requests that do something must come from the page itself (Sec-Fetch-Site)"
        return ""

    def _welcome(self, scope: Scope, headers: dict[str, list[str]]) -> Response:
        """Exchange a link for a cookie."""
        if "prefetch" in " ".join(headers.get("sec-purpose", []) + headers.get("purpose", [])):
            return _no(403, "links open once, so they are not fetched beforehand")
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=4)
        (token,) = query.get("token", [""])[:1]
        session = self._door.exchange(token)
        if session is None:
            return _no(
                401, "this link was used already, or is none; `embed serve` printed a new one", headers
            )
        response = HTMLResponse(_WELCOME)
        response.set_cookie(self._door.cookie, session, httponly=True, samesite="strict", path="/")
        return response


class _Sender:
    """Adds to every answer what browsers must know of it."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            held: list[tuple[bytes, bytes]] = list(message.get("headers", []))
            own = {name for name, _ in held}
            held += [
                (name.encode(), text.encode()) for name, text in _HEADERS.items() if name.encode() not in own
            ]
            message = {**message, "headers": held}
        await self._send(message)


class _Patience:
    """Waits for the pieces of a request's body, but not for ever."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._began = time.monotonic()
        self._bytes = 0
        self._whole = False

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), _PIECE_S)
        except TimeoutError as error:
            raise SlowClient from error
        self._bytes += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if time.monotonic() - self._began > _BODY_S + self._bytes / _BYTES_PER_S:
            raise SlowClient
        return message


def _no(status: int, why: str, headers: Mapping[str, list[str]] | None = None) -> Response:
    """Return a refusal: as text for a person who looks at it, where the headers are given."""
    if headers is not None and any("text/html" in text for text in headers.get("accept", [])):
        return PlainTextResponse(f"{why[0].upper()}{why[1:]}.\n", status)
    return JSONResponse({"error": why}, status)


def _headers_of(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, text in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(text.decode("latin-1"))
    return found


def _session(headers: dict[str, list[str]], name: str) -> str:
    try:
        cookies = SimpleCookie("; ".join(headers.get("cookie", [])))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _same_address(name: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False


def _tell_defect(error: Exception) -> None:
    """Say on stderr where the program failed, and nothing of what it worked on: messages may hold ids."""
    places = traceback.extract_tb(error.__traceback__)
    at = " < ".join(f"{place.name} ({place.filename}:{place.lineno})" for place in reversed(places[-4:]))
    sys.stderr.write(f"defect: {type(error).__name__} in {at}\n")
