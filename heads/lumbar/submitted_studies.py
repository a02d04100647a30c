"""Answers of a run as a submission, collected as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.lumbar.levels import CLASSES, TARGETS
from heads.lumbar.rsna_score import for_rsna_score, is_of_the_competition
from heads.lumbar.submission import write_submission
from heads.scores import Floats


class SubmittedStudies:
    """The studies that a submission will hold.

    A target that a study has no image for is answered by the prevalence that the answer assumes: the competition wants
    all 25 rows of a study.
    """

    def __init__(self) -> None:
        self._of_study: dict[str, Floats] = {}

    def add(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Take answers (`heads.predict_units`).

        Raises
        ------
        UsageError
            If they are not of the competition's 25 targets and three classes.
        """
        for answer in answers:
            targets: Mapping[str, Any] = answer["targets"]
            classes = next((tuple(of["prevalence"]["assumed"]) for of in targets.values()), ())
            if not is_of_the_competition(list(targets), classes):
                missing = [target for target in TARGETS if target not in targets]
                raise UsageError(
                    f"a submission needs a run of the competition's {len(TARGETS)} targets and the classes "
                    f"{', '.join(CLASSES)}; found {len(targets)} targets, classes {', '.join(classes)}"
                    + (f", and no {missing[0]!r}" if missing else "")
                )
            self._of_study[str(answer["unit_id"])] = np.array([_said(targets[name]) for name in TARGETS])

    def write(self, path: StrPath) -> None:
        """Write the submission: probabilities times (1, 2, 4), which score best; raises as `write_submission`."""
        studies = list(self._of_study)
        said = np.array(list(self._of_study.values())).reshape(-1, len(TARGETS), len(CLASSES))
        write_submission(path, studies, for_rsna_score(said))


def _said(answer: Mapping[str, Any]) -> list[float]:
    said = answer["probabilities"] or answer["prevalence"]["assumed"]
    return [float(said[name]) for name in CLASSES]
