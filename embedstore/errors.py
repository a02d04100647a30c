"""Errors, grouped by what the catcher would do about them.

A message says which argument or file, what it must be, what was found, and what to do.
Only ``cli.main`` turns these into options, text and exit codes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import Enum, StrEnum
from numbers import Integral, Real


class Advice(Enum):
    """What to do about an error, as a Python user would; the command line names its own commands instead."""

    REPAIR = "Run: embedstore.repair_store(path)"
    UPGRADE = "Run: embedstore.upgrade_store(path)"
    EXTRACT = "Run embedstore.extract again"
    ADD_TASK = "embedstore.write_task adds one"
    CHANGE_TASK = "embedstore.write_task replaces a task"
    PROBE = "heads.save_run makes one"
    LOCALISE = "The levels of a store have to be localised first"


class EmbedError(Exception):
    """Base of every error that a user can mend.

    The message speaks of Python's arguments, each in backquotes: `device`.

    Parameters
    ----------
    problem
        Which argument or file, what it must be, and what was found.
    advice
        What to do, where it is a call of its own.

    Examples
    --------
    >>> str(EmbedError("x.store is damaged", advice=Advice.REPAIR))
    'x.store is damaged. Run: embedstore.repair_store(path)'
    """

    def __init__(self, problem: str = "", *, advice: Advice | None = None) -> None:
        super().__init__(problem)
        self.advice = advice

    @property
    def problem(self) -> str:
        """The message without the advice."""
        return super().__str__()

    def __str__(self) -> str:
        if self.advice is None:
            return self.problem
        stop = "" if self.problem.endswith("?") else "."
        return f"{self.problem}{stop} {self.advice.value}"


class UsageError(EmbedError, ValueError):
    """An argument, option or setting is wrong; nothing was read or written."""


class DataError(EmbedError, ValueError):
    """A file or table that the user brought is wrong."""


class StoreError(EmbedError):
    """A store cannot be used as asked."""


class IdentityMismatch(StoreError):
    """A store or run holds vectors of another identity; mixing them would be silent nonsense."""


class CorruptStore(StoreError):
    """Bytes in a store are not the bytes that were committed."""


class StoreBusy(StoreError):
    """Another process is writing to the store."""


class MissingWeights(EmbedError):
    """The encoder's weights are not on this machine or may not be fetched."""


class MissingDependency(EmbedError, ImportError):
    """An optional library is not installed; the message holds the install line."""


class PluginError(EmbedError):
    """An installed package's encoder, data set or head cannot be loaded, or does not keep its contract."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``. Did you mean 'xgboost'?`` for the end of a message about an unknown name; ``""`` if none is near."""
    near = nearest(name, known)
    return f". Did you mean {near!r}?" if near is not None else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `name`, whatever its case; None if none is near."""
    by_lower = {entry.lower(): entry for entry in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def first_few(names: Iterable[object], *, shown: int = 5) -> str:
    """Return the first names of a list, and how many more there are, so that no list seems to end where it does not.

    Parameters
    ----------
    names
        What is listed, in order; each as ``str`` says it.
    shown
        How many are named.

    Examples
    --------
    >>> first_few(["a", "b", "c", "d"], shown=2)
    'a, b and 2 more'
    >>> first_few(["a", "b"], shown=2)
    'a, b'
    """
    listed = [str(name) for name in names]
    return ", ".join(listed[:shown]) + and_more(len(listed) - shown)


def and_more(left: int) -> str:
    """Return ``" and 3 more"`` for the end of a list that leaves 3 out; ``""`` where it is whole."""
    return f" and {left:,} more" if left > 0 else ""


def require_whole_number(name: str, value: object) -> None:
    """Refuse an argument that is no whole number; raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{name} must be a whole number; found {value!r}")


def require_number(name: str, value: object) -> None:
    """Refuse an argument that is no number; raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name} must be a number; found {value!r}")


class Reason(StrEnum):
    """Why an image has no vector; the code stands in the receipt beside a message for people."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too-large"
    NO_PIXELS = "no-pixels"
    BAD_GEOMETRY = "bad-geometry"
    CRASHED_DECODER = "crashed-decoder"
    TIMEOUT = "timeout"
    NON_FINITE = "non-finite"
    OVERFLOW = "overflow"
    CHANGED = "changed"


class Note(StrEnum):
    """What was mended, guessed or left out to show an image; counted in receipts and in a run's summary."""

    HIGH_BIT = "high-bit"
    BITS_OUTSIDE = "bits-outside-stored"
    LUT_SIGN = "lut-sign"
    WINDOW_DROPPED = "window-dropped"
    WINDOW_MENDED = "window-mended"
    SHAPE_CONTRADICTS = "shape-contradicts"
    INTENSITY_LUT = "intensity-lut-left-out"
    NOT_HOUNSFIELD = "not-hounsfield"
    RESCALE_DROPPED = "rescale-dropped"
    MADE_SQUARE = "pixels-made-square"
    ASPECT_IGNORED = "pixel-aspect-ignored"
    ZERO_VECTOR = "zero-vector"

    @property
    def words(self) -> str:
        """What it means, in a line for people."""
        return _NOTE_WORDS[self]


_NOTE_WORDS = {
    Note.HIGH_BIT: "HighBit is not BitsStored - 1; the bits that end at HighBit were taken",
    Note.BITS_OUTSIDE: "bits outside of BitsStored hold something else (an overlay); they were left out",
    Note.LUT_SIGN: "the first value of a lookup table was written with the wrong sign",
    Note.WINDOW_DROPPED: "a window or VOI LUT without meaning, or that leaves one grey level, was left out",
    Note.WINDOW_MENDED: "a LINEAR window narrower than 1 was read as LINEAR_EXACT, or an unknown function as LINEAR",
    Note.SHAPE_CONTRADICTS: "PresentationLUTShape contradicts PhotometricInterpretation and was followed",
    Note.INTENSITY_LUT: "the modality LUT leads to X-ray intensity for measurements; it was not applied",
    Note.NOT_HOUNSFIELD: "a CT whose values are no Hounsfield units was shown over its own range",
    Note.RESCALE_DROPPED: "a RescaleSlope of 0 makes every value the same; the rescale was left out",
    Note.MADE_SQUARE: "pixels that are not square were resampled to square ones",
    Note.ZERO_VECTOR: "the vector is zero and has no direction (a constant image); search and export leave it out",
    Note.ASPECT_IGNORED: "the aspect ratio of the pixels is beyond 1:100 and was ignored",
}


def words_of_note(code: str) -> str:
    """Return what a note's code means; of one that a later version wrote, that it is not known here."""
    return Note(code).words if code in set(Note) else "written by a later version of embedstore"


class ImageRefused(DataError):
    """One image cannot become a vector; the run goes on without it.

    Parameters
    ----------
    reason
        The code that the receipt records.
    message
        One line for people: what was found, and where possible what to do.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[ImageRefused], tuple[Reason, str]]:
        return type(self), (self.reason, self.message)
