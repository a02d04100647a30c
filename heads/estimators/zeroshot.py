"""Classes named in words: the similarity of an image to text prompts, with nothing fitted to the images.

Several prompts of a class are averaged as unit vectors and scaled back to length one (Radford et al. 2021,
arXiv 2103.00020, section 3.1.4). The logit is SigLIP's: scale x cosine + bias (Zhai et al. 2023, arXiv
2303.15343). The probe still calibrates on the training patients; the report before calibration is the pure
zero-shot result.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from embedstore.task import Task
from embedstore.text_tower import TextTower
from heads.base import FamilyDefaults, Head, HeadNeeds, OutOfFold, Training
from heads.estimators.classifier import EmbeddingClassifier
from heads.exact_products import reproducible_norms, reproducible_product
from heads.scores import Floats

PROMPTS_FILE = Path(__file__).with_name("prompts.toml")
ANY_TARGET = "*"


class ZeroShotHead(EmbeddingClassifier):
    """Scores an image by its cosine to one text vector per class.

    Parameters
    ----------
    scale
        Factor of the cosine: SigLIP's ``exp(logit_scale)``.
    bias
        Added to every logit; it cancels between classes and is kept for the record.

    Attributes
    ----------
    text_vectors_
        (n_classes, dim) float64 of length one.
    classes_
        (n_classes,) labels in order.

    Examples
    --------
    >>> heads.zeroshot_head(np.eye(2, 4)).classes_
    array([0, 1])
    """

    needs: ClassVar[HeadNeeds] = HeadNeeds(libraries=("transformers",), text_tower=True)

    def __init__(self, scale: float = 1.0, *, bias: float = 0.0) -> None:
        self.scale = scale
        self.bias = bias

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Refuse: the classes are given in words, by `zeroshot_head`."""
        raise UsageError(
            "a zero-shot head learns nothing from images; make one with zeroshot_head(text_vectors)"
        )

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the text vectors and classes."""
        return {"text_vectors": self.text_vectors_, "classes": np.asarray(self.classes_)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> Self:
        """Build the head again; raises DataError where an array is missing."""
        try:
            return cls(**params)._with(arrays["text_vectors"], arrays["classes"])
        except KeyError as error:
            raise DataError(f"a zero-shot head needs the array {error}; found {sorted(arrays)}") from error

    @staticmethod
    def family() -> ZeroShotFamily:
        """Refuse: without prompts there is no grid."""
        raise UsageError(
            "`head='zeroshot'` needs an encoder with a text tower: a SigLIP checkpoint, by `encoder`"
        )

    @classmethod
    def family_of_text(cls, task: Task, text: TextTower, *, prompts: Path | None) -> ZeroShotFamily:
        """Return the head of a task's prompts (`zeroshot_family`), from the project's prompts or a file."""
        return zeroshot_family(task, text, prompts=None if prompts is None else read_prompts(prompts))

    def _scores(self, X: npt.NDArray[np.float32]) -> Floats:
        norms = reproducible_norms(X)
        products = reproducible_product(X, self.text_vectors_)
        cosines = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
        logits: Floats = self.scale * cosines + self.bias
        return logits[:, 1:] - logits[:, :1] if len(self.classes_) == 2 else logits

    def _with(self, text_vectors: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Self:
        self.text_vectors_ = np.asarray(text_vectors, np.float64)
        self.classes_ = np.asarray(classes)
        self.n_features_in_ = self.text_vectors_.shape[1]
        return self


@dataclass(frozen=True)
class ZeroShotFamily(FamilyDefaults):
    """The one point of a head without parameters.

    Parameters
    ----------
    heads
        One per target of the task.
    """

    heads: tuple[ZeroShotHead, ...]

    @property
    def points(self) -> tuple[Mapping[str, Any], ...]:
        """Constructor parameters of the one point."""
        return (self.heads[0].get_params(),)

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Score every row; nothing was learned from any of them, so every row is out of fold.

        Raises
        ------
        UsageError
            If a row is not a vector alone.
        """
        del folds, seed
        dim = self.heads[0].n_features_in_
        if training.X.shape[1] != dim:
            raise UsageError(
                f"zeroshot compares image vectors of {dim} numbers with words, so it can use no metadata "
                f"(`with_columns`); found rows of {training.X.shape[1]}"
            )
        heads = self._heads_of(training)
        scores = [head.decision_function(training.X).reshape(len(training.X), -1) for head in heads]
        return OutOfFold(scores=np.stack(scores, axis=1)[None].astype(np.float32))

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Return the heads as they are."""
        del params_of_target, seed
        return self._heads_of(training)

    def _heads_of(self, training: Training) -> list[Head]:
        """Return the heads of these targets."""
        return [self.heads[target] for target in training.targets or range(len(self.heads))]


def zeroshot_head(text_vectors: npt.NDArray[Any], *, scale: float = 1.0, bias: float = 0.0) -> ZeroShotHead:
    """Make a head from one text vector per class.

    Parameters
    ----------
    text_vectors
        (n_classes, dim), of any length but zero.
    scale, bias
        SigLIP's ``exp(logit_scale)`` and ``logit_bias``.

    Examples
    --------
    >>> words = np.eye(2, 1152, dtype=np.float32)  # one vector for each class, by the text tower of an encoder
    >>> heads.zeroshot_head(words).predict_proba(store.embeddings(dtype="float32").vectors[:3]).shape
    (3, 2)
    """
    vectors = np.asarray(text_vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all() or not (lengths > 0).all():
        raise DataError("text vectors must be finite and not zero")
    return ZeroShotHead(float(scale), bias=float(bias))._with(vectors / lengths, np.arange(len(vectors)))


def zeroshot_family(
    task: Task, text: TextTower, *, prompts: Mapping[str, Any] | None = None
) -> ZeroShotFamily:
    """Make the family of a task from prompts.

    Parameters
    ----------
    task
        Its targets and classes are what the prompts must name.
    text
        The text tower of the encoder that made the images' vectors.
    prompts
        Content of a prompts file (`read_prompts`); the project's own by default.

    Raises
    ------
    DataError
        If a class of a target has no prompt.
    """
    known = read_prompts(PROMPTS_FILE) if prompts is None else prompts
    heads = []
    for target in task.targets:
        averages = []
        for texts in prompts_of(known, task, target):
            vectors = np.asarray(text.encode(texts), np.float64)
            averages.append((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0))
        heads.append(zeroshot_head(np.stack(averages), scale=text.logit_scale, bias=text.logit_bias))
    return ZeroShotFamily(tuple(heads))


def read_prompts(path: Path) -> dict[str, Any]:
    """Read a prompts file: task -> target (or ``*``) -> class -> list of texts.

    Raises
    ------
    DataError
        If it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no prompts file: {error}") from error


def prompts_of(prompts: Mapping[str, Any], task: Task, target: str) -> list[list[str]]:
    """Return the texts of each class of a target, in class order, with ``{target}`` put into words.

    Raises
    ------
    DataError
        If the task, the target or a class has no prompt.
    """
    of_task = prompts.get(task.name, {})
    of_target = of_task.get(target, of_task.get(ANY_TARGET, {}))
    words = target.replace("_", " ")
    found = []
    for name in task.classes:
        texts = of_target.get(name)
        if not texts:
            raise DataError(
                f"prompts: [{task.name}.{target!r}] must hold a list of texts for class {name!r}; "
                f"found classes {sorted(of_target) or 'none'}"
            )
        found.append([text.replace("{target}", words) for text in texts])
    return found
