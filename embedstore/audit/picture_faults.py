"""Pictures that hold nothing, are negatives or turned, or bear text: judged against the others of their kind."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.audit.findings import BLANK, INVERTED, ROTATED, TEXT, Finding
from embedstore.audit.pictures import Pictures, units_of

_BLANK_GREY = 8.0
# Of correlations, -1 to 1. Among 385 phantoms and 20 planted negatives, none lay between .12 and 1.06.
_INVERTED_BY = 0.5
_ROTATED_BY = 0.2
# Of other patients' pictures: more than are turned themselves, and fewer than a view has.
_FEWEST_NEIGHBORS, _NEIGHBORS_SHARE = 5, 0.1
_FEWEST = 20  # of a kind, for what is usual in it
_LETTERS = 4
_GALLERY = 4000
_AT_ONCE = 4096
_TURNS = {"90 degrees": 1, "180 degrees": 2, "270 degrees": 3}

Gists = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]


def blank_pictures(pictures: Pictures, image_ids: list[str]) -> list[Finding]:
    """Return the pictures that are of one grey, but for a few pixels."""
    return [
        Finding(
            kind=BLANK,
            image_ids=(image_ids[row],),
            why="constant" if grey == 0 else f"its pixels span {grey:.0f} of 255 grey levels",
            score=float(grey),
            leave_out=(image_ids[row],),
        )
        for row, grey in zip(pictures.rows.tolist(), pictures.range_grey, strict=True)
        if grey < _BLANK_GREY
    ]


def turned_and_negative(
    pictures: Pictures, image_ids: list[str], kinds: npt.NDArray[np.str_], patients: npt.NDArray[np.int64]
) -> list[Finding]:
    """Return the pictures that fit their kind better as negatives, or turned.

    A negative is told by the median picture of its kind. A kind has several views, so a turned one is told by the
    pictures of other patients that are nearest to it as it is, and turned. Kinds of fewer than 20 pictures say nothing.

    Parameters
    ----------
    pictures
        What was seen.
    image_ids, kinds, patients
        (n,) of all rows.
    """
    found = []
    seen = pictures.range_grey >= _BLANK_GREY
    for kind in np.unique(kinds[pictures.rows]).tolist():
        own = np.flatnonzero(seen & (kinds[pictures.rows] == kind))
        if len(own) < _FEWEST:
            continue
        rows, gists = pictures.rows[own], pictures.gists[own]
        units = units_of(gists)
        middle = units_of(np.median(units, axis=0)[None])[0]
        negative = -2 * (units @ middle)
        inverted = negative >= _INVERTED_BY
        found += [
            Finding(
                kind=INVERTED,
                image_ids=(image_ids[rows[place]],),
                why=f"its negative is more like the median picture{_of(kind)} than itself: "
                f"by {negative[place]:.2f} in correlation",
                score=float(negative[place]),
            )
            for place in np.flatnonzero(inverted)
        ]
        found += _turned(gists, rows, ~inverted, image_ids, patients[rows], kind)
    return sorted(found, key=lambda finding: -(finding.score or 0))


def _turned(
    gists: Gists,
    rows: npt.NDArray[np.int64],
    usual: npt.NDArray[np.bool_],
    image_ids: list[str],
    patients: npt.NDArray[np.int64],
    kind: str,
) -> list[Finding]:
    gallery = np.flatnonzero(usual)
    if len(gallery) < _FEWEST:
        return []
    if len(gallery) > _GALLERY:
        gallery = np.sort(np.random.default_rng(0).choice(gallery, _GALLERY, replace=False))
    units = units_of(gists[gallery])

    def fit(turned: Gists) -> Floats:
        """Return the mean correlation with the nearest pictures of other patients."""
        asked, theirs = units_of(turned[usual]), patients[usual]
        count = max(_FEWEST_NEIGHBORS, int(_NEIGHBORS_SHARE * len(gallery)))
        found = np.empty(len(asked), np.float32)
        for start in range(0, len(asked), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            of_pictures = asked[some] @ units.T
            of_pictures[theirs[some, None] == patients[gallery]] = -1
            found[some] = np.partition(of_pictures, -count, axis=1)[:, -count:].mean(axis=1)
        return found

    as_it_is = fit(gists)
    # What fits badly either way is of another kind, and not turned.
    usual_fit = float(np.quantile(as_it_is, 0.1))
    fits = {name: fit(np.rot90(gists, turns, axes=(1, 2))) for name, turns in _TURNS.items()}
    gains = {name: np.where(turned >= usual_fit, turned - as_it_is, 0) for name, turned in fits.items()}
    found = []
    for place, row in enumerate(rows[usual].tolist()):
        name, gain = max(
            ((name, float(gain[place])) for name, gain in gains.items()), key=lambda pair: pair[1]
        )
        if gain >= _ROTATED_BY:
            why = f"turned by {name} it is more like the nearest pictures{_of(kind)}: by {gain:.2f} in correlation"
            found.append(Finding(kind=ROTATED, image_ids=(image_ids[row],), why=why, score=gain))
    return found


def pictures_with_text(
    pictures: Pictures, image_ids: list[str], burned_in: npt.NDArray[np.str_]
) -> list[Finding]:
    """Return the pictures with a line of what looks like letters, and those whose header says that there is text."""
    found = []
    letters = dict(zip(pictures.rows.tolist(), pictures.letters.tolist(), strict=True))
    for row, image_id in enumerate(image_ids):
        seen = letters.get(row, 0)
        if seen >= _LETTERS or burned_in[row] == "yes":
            said = ["its header says so"] * (burned_in[row] == "yes")
            said += [f"{seen} shapes like letters stand in a line"] * (seen >= _LETTERS)
            found.append(Finding(kind=TEXT, image_ids=(image_id,), why="; ".join(said), score=float(seen)))
    return found


def _of(kind: str) -> str:
    return f" of {kind}" if kind else ""
