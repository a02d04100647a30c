"""One self-contained HTML page of pictures: cases that were found, side by side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True, kw_only=True)
class Case:
    """A picture with what stands below it.

    Parameters
    ----------
    picture
        A small JPEG file; None where the image's file has moved.
    lines
        What stands below, the first line first.
    """

    picture: bytes | None = field(repr=False)
    lines: Sequence[str]

    @property
    def url(self) -> str:
        """The picture as a data URL; ``""`` without one."""
        return "" if self.picture is None else picture_url(self.picture)


def render_cases(title: str, asked: Sequence[Case], found: Sequence[Case], *, phantom: bool = False) -> str:
    """Return a page with what was searched for, and what was found; of phantoms it says what they are."""
    template = page_environment().get_template("cases.html")
    return str(template.render(title=title, asked=asked, found=found, phantom=phantom))


def page_environment() -> Environment:
    """Return what renders the templates of this room."""
    return Environment(
        loader=PackageLoader("heads.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def picture_url(jpeg: bytes) -> str:
    """Return a JPEG file as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
