"""What an audit finds: kinds of findings, and the images that one is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IDENTICAL = "identical-pixels"
NEAR = "near-duplicates"
PATIENTS_SPLIT = "patients-across-splits"
IMAGES_SPLIT = "images-across-splits"
TWO_PATIENTS = "two-patients"
STRANGER = "another-cluster"
BLANK = "blank"
INVERTED = "inverted"
ROTATED = "rotated"
OUTLIER = "outlier"
TEXT = "burned-in-text"

# Kind -> what it means, in the order of their weight.
KINDS = {
    PATIENTS_SPLIT: "a patient has images in several splits",
    IMAGES_SPLIT: "one picture is in several splits",
    TWO_PATIENTS: "one picture belongs to several patients",
    IDENTICAL: "images have the same pixels",
    NEAR: "images are copies but for compression, size, a small turn or a cut",
    BLANK: "an image is constant, or holds next to nothing",
    STRANGER: "an image lies among those of another anatomy, plane or modality",
    INVERTED: "an image is the negative of its kind",
    ROTATED: "an image fits its kind better when it is turned",
    OUTLIER: "an image is far from all others",
    TEXT: "text seems to be burned into the pixels",
}
# What only pixels tell; of blank images, zero vectors tell some.
OF_PIXELS = (BLANK, INVERTED, ROTATED, TEXT)
# What may be asked for by one word.
GROUPS = {
    "leakage": (PATIENTS_SPLIT, IMAGES_SPLIT),
    "duplicates": (IDENTICAL, NEAR),
    "all": tuple(KINDS),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding.

    Parameters
    ----------
    kind
        One of `KINDS`.
    image_ids
        The images that it is about, in the order of the store.
    why
        What was seen, in words.
    score
        How sure, or how far: what it is stands in `why`; None where there is nothing to measure.
    leave_out
        Those of the images that are better left out of training; none where the finding is for a person to judge.
    """

    kind: str
    image_ids: tuple[str, ...]
    why: str
    score: float | None = None
    leave_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "image_ids": list(self.image_ids),
            "why": self.why,
            "score": self.score,
            "leave_out": list(self.leave_out),
        }


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What is wrong with a store.

    Parameters
    ----------
    findings
        By kind, in the order of `KINDS`; of a kind the surest first.
    images
        Images with a vector.
    pictures
        Images whose pixels were looked at.
    thresholds
        What the store itself fixed -> the number.
    notices
        What could not be looked at, and why.
    """

    findings: Sequence[Finding]
    images: int
    pictures: int
    thresholds: Mapping[str, float] = field(default_factory=dict)
    notices: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> findings, also of those that nothing was found of."""
        return {kind: sum(found.kind == kind for found in self.findings) for kind in KINDS}

    @property
    def unseen(self) -> tuple[str, ...]:
        """The kinds of which nothing that was found means little: only pixels tell them, and not all were looked at."""
        return OF_PIXELS if self.pictures < self.images else ()

    def of_kind(self, kind: str) -> list[Finding]:
        """Return the findings of a kind."""
        return [found for found in self.findings if found.kind == kind]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "images": self.images,
            "pictures": self.pictures,
            "unseen": list(self.unseen),
            "counts": self.counts,
            "thresholds": dict(self.thresholds),
            "notices": list(self.notices),
            "findings": [found.to_json() for found in self.findings],
        }
