"""The pictures of units on a page that was drawn before: a new page need not lose what an old one shows."""

from __future__ import annotations

import base64
import binascii
import html
import re
from pathlib import Path

from embedstore.files import StrPath

# As the template writes them.
_PICTURE = re.compile(r'<img src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)" alt="an image of ([^"]*)">')


def pictures_on_page(page: StrPath) -> dict[str, bytes]:
    """Return unit id -> JPEG file of the pictures on a page of this project; ``{}`` where there is no such page."""
    try:
        text = Path(page).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for payload, unit_id in _PICTURE.findall(text):
        try:
            found[html.unescape(unit_id)] = base64.b64decode(payload, validate=True)
        except binascii.Error:
            continue
    return found
