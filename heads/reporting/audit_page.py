"""One self-contained HTML page of what an audit found, with pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from heads.reporting.cases_page import page_environment, picture_url


@dataclass(frozen=True, kw_only=True)
class PicturedFinding:
    """One finding with its pictures.

    Parameters
    ----------
    why
        What was seen, in words.
    images
        Image id and small JPEG file, None where the file has moved.
    more
        Images that are not shown.
    left_out
        Which images are better left out.
    """

    why: str
    images: Sequence[tuple[str, bytes | None]] = field(repr=False)
    more: int
    left_out: Collection[str]


@dataclass(frozen=True, kw_only=True)
class AuditSection:
    """The findings of one kind: its name, what it means, how many there are, and the first of them.

    Of an `unseen` kind, images were left out of account.
    """

    kind: str
    means: str
    count: int
    findings: Sequence[PicturedFinding]
    unseen: bool = False


def render_audit(
    store: str,
    sections: Sequence[AuditSection],
    *,
    images: int,
    pictures: int,
    thresholds: Mapping[str, float],
    notices: Sequence[str],
    phantom: bool = False,
) -> str:
    """Return the page.

    Parameters
    ----------
    store
        Name of the store.
    sections
        One for each kind, the gravest first.
    images, pictures
        Images with a vector, and those whose pixels were looked at.
    thresholds, notices
        As `embedstore.audit.findings.Audit`.
    phantom
        Whether a computer drew all images of the store.
    """
    environment = page_environment()
    environment.filters["picture"] = picture_url
    page = environment.get_template("audit.html").render(
        store=store,
        sections=sections,
        images=images,
        pictures=pictures,
        thresholds=thresholds,
        notices=notices,
        phantom=phantom,
    )
    return str(page)
