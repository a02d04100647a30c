"""Made-up generated answers about phantom lumbar studies: what a language model could have written, and none has."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.lumbar.severity_codes import write_response

# Models of some billion parameters reach a kappa near one half (docs/lumbar.md).
_TRUE_SHARE = 0.5


def write_made_up_responses(path: StrPath, root: StrPath, *, seed: int = 0) -> int:
    """Write one JSON line for each study of ``train.csv``, as ``embed compare --responses`` reads them.

    Half of the codes are the true ones and half are drawn by their shares in the table; the first answer has text
    around it, and the second breaks off, as generated ones do.

    Parameters
    ----------
    path
        The file to write.
    root
        Folder of `write_phantom_lumbar`.
    seed
        The same seed writes the same bytes.

    Returns
    -------
    int
        Number of answers.

    Raises
    ------
    UsageError
        If `root` has no ``train.csv``.
    """
    table = Path(root) / "train.csv"
    if not table.is_file():
        raise UsageError(f"root must be a folder of phantom lumbar studies with train.csv; found {root}")
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    # An empty cell is drawn like any other.
    labels = np.array(
        [[CLASSES.index(row[name]) if row[name] else -1 for name in TARGETS] for row in rows], np.int64
    )
    answers = [_made_up(text, at) for at, text in enumerate(_responses(labels, seed))]
    Path(path).write_text(
        "".join(
            json.dumps({"study_id": row["study_id"], "response": answer, "made_up": True}) + "\n"
            for row, answer in zip(rows, answers, strict=True)
        ),
        encoding="utf-8",
        newline="",
    )
    return len(rows)


def _responses(labels: npt.NDArray[np.int64], seed: int) -> list[str]:
    chance = np.random.default_rng(seed)
    shares = np.bincount(labels[labels >= 0], minlength=len(CLASSES)) / (labels >= 0).sum()
    drawn = chance.choice(len(CLASSES), size=labels.shape, p=shares)
    true = (chance.random(labels.shape) < _TRUE_SHARE) & (labels >= 0)
    return [write_response(row.tolist()) for row in np.where(true, labels, drawn)]


def _made_up(text: str, at: int) -> str:
    if at == 0:
        return f"Here is the answer: {text}"
    return text[: len(text) // 2] if at == 1 else text
