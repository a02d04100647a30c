"""What a generative model is asked about a lumbar study, and the answer that is expected of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedstore.errors import DataError
from embedstore.files import StrPath, sha256_bytes
from embedstore.generation.slice_choice import VIEWS

DEFAULT_PROMPT = """\
These are {count} slices of one lumbar spine MRI: {views}.
Grade every disc level from L1/L2 to L5/S1 for five conditions: canal (spinal canal stenosis), lf and rf (left and \
right neural foraminal narrowing), ls and rs (left and right subarticular stenosis).
Grades: N (normal or mild), M (moderate), S (severe).
Answer with one line of compact JSON and nothing else, in this form with your grades:
{"L1L2":{"canal":"N","lf":"N","rf":"N","ls":"N","rs":"N"},"L2L3":{...},"L3L4":{...},"L4L5":{...},"L5S1":{...}}"""
_COUNT, _VIEWS = "{count}", "{views}"
_LONGEST = 100_000


@dataclass(frozen=True)
class Prompt:
    """The words behind the images of a study.

    Parameters
    ----------
    template
        Text in which ``{count}`` becomes the number of images and ``{views}`` their views in order, with commas.

    Examples
    --------
    >>> Prompt("{count} images ({views})").of(["sagittal-t2", "axial-t2"])
    '2 images (Sagittal T2, Axial T2)'
    """

    template: str = DEFAULT_PROMPT

    @property
    def sha256(self) -> str:
        """Digest of the template."""
        return sha256_bytes(self.template.encode())

    def of(self, views: Sequence[str]) -> str:
        """Return the text for images of these views."""
        named = ", ".join(VIEWS[view] for view in views)
        return self.template.replace(_COUNT, str(len(views))).replace(_VIEWS, named)


def read_prompt(path: StrPath) -> Prompt:
    """Read a prompt from a text file; blanks and line ends around it are left out.

    Raises
    ------
    DataError
        If it cannot be read, is empty or longer than 100,000 characters.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        found = (
            "other bytes" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error)).lower()
        )
        raise DataError(f"{path} must be a prompt, text in UTF-8; found {found}") from error
    if not 0 < len(text) <= _LONGEST:
        raise DataError(f"{path} must hold a prompt of 1 to {_LONGEST:,} characters; found {len(text):,}")
    return Prompt(text)
