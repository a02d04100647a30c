"""Who may come in: links that open once, and the cookies that they become."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

# Browsers that may look at once; the oldest has to open a new link when there are more.
_MOST_SESSIONS = 32


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
