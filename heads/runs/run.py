"""A saved probe: what it says of its data, and what it says of vectors of the same identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.brief import Brief
from embedstore.errors import DataError, UsageError
from embedstore.identity import Identity
from embedstore.task import ImageRule, image_rules_from_json
from heads.inputs.metadata import Cells
from heads.inputs.pooling import unit_numbers
from heads.protocol.predictions import EVALUATION, OUT_OF_FOLD, Evidence, Predictions
from heads.protocol.predictor import BlendedPredictor, Predictor
from heads.scores import Floats
from heads.statistics.conformal import ConformalSets
from heads.statistics.outliers import Outliers


@dataclass(frozen=True, kw_only=True, repr=False)
class Run(Brief):
    """A saved probe.

    Parameters
    ----------
    folder
        Where it lies.
    document
        The content of ``run.json``.
    identity
        What vectors it may be used on.
    predictor
        Heads and calibrators.
    conformal
        Bars of the conformal sets, by target.
    outliers
        Distances of the units learned from; None in a run without a bank of vectors.
    learned_images
        (n, 32) uint8 digests of the decoded pixels of the images learned from, sorted, each once.
    predictions
        Arrow table of every unit and target (`heads.protocol.predictions.schema`); as arrays: `out_of_fold` and
        `evaluated`.
    label_noise
        Arrow table of doubtful labels (`heads.runs.run_tables.label_noise_table`).
    units
        Arrow table of what the units are (`heads.runs.unit_table`); None in runs from before it was kept.
    timing
        When it was made (``created``) and how long each step took (``seconds``); empty where nobody kept it.
    evidence
        What else was said out of fold, from which a blend learns.
    """

    folder: Path
    document: Mapping[str, Any]
    identity: Identity
    predictor: Predictor | BlendedPredictor
    conformal: tuple[ConformalSets, ...]
    outliers: Outliers | None
    learned_images: npt.NDArray[np.uint8]
    predictions: pa.Table
    label_noise: pa.Table
    units: pa.Table | None = None
    timing: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def run_id(self) -> str:
        """First 12 digits of the digest of what decides the result: equal inputs, options and versions, equal id.

        Of a run of format version 4, which did not keep it, those of the digest of ``run.json``.
        """
        return str(self.document.get("run_id", self.document["sha256"]))[:12]

    @property
    def seconds(self) -> float:
        """How long making it took, in seconds; 0 where nobody kept it."""
        return float(sum(self.timing.get("seconds", {}).values()))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of probabilities."""
        return tuple(self.document["task"]["classes"])

    @property
    def targets(self) -> tuple[str, ...]:
        """Target names, in the order of probabilities."""
        return tuple(self.document["task"]["targets"])

    @property
    def positive(self) -> str | None:
        """The class that one acts on, or None; in runs from before tasks named it, the second of two classes is."""
        of_old = self.classes[1] if len(self.classes) == 2 else None
        positive: str | None = self.document["task"].get("positive", of_old)
        return positive

    @property
    def image_rules(self) -> tuple[ImageRule | None, ...]:
        """Which images speak for each target, in the order of probabilities; None where all do."""
        rules = image_rules_from_json(self.document["task"].get("images_of_target", {}))
        return tuple(rules.get(target) for target in self.targets)

    @cached_property
    def evaluated(self) -> Predictions:
        """Predictions of the evaluation set, in the order of the table, which is parsed once."""
        return Predictions.from_table(
            self.predictions, EVALUATION, targets=self.targets, classes=self.classes
        )

    @cached_property
    def out_of_fold(self) -> Predictions:
        """Out-of-fold predictions of the units learned from, in the order of the table, which is parsed once."""
        return Predictions.from_table(
            self.predictions, OUT_OF_FOLD, targets=self.targets, classes=self.classes
        )

    @cached_property
    def learned_units(self) -> frozenset[str]:
        """Ids of the units learned from."""
        learned = pc.equal(self.predictions.column("role"), OUT_OF_FOLD)
        return frozenset(self.predictions.filter(learned).column("unit_id").unique().to_pylist())

    def require_identity(self, identity: Identity) -> None:
        """Refuse vectors of another identity; raises `IdentityMismatch` with the fields that differ."""
        self.identity.require_same(identity, holder=f"run {self.folder}")

    def predict(
        self,
        X: npt.ArrayLike,
        unit_of_image: npt.ArrayLike | None = None,
        *,
        n_units: int | None = None,
        metadata: Cells | None = None,
        image_of_target: npt.NDArray[np.bool_] | None = None,
    ) -> Floats:
        """Return calibrated probabilities.

        Parameters
        ----------
        X
            (n_images, dim) vectors of this run's identity (`require_identity`), finite; read as float32.
        unit_of_image
            (n_images,) int: the unit (study or image) of each vector, from 0 and without gaps. Without it every row
            is a unit of its own.
        n_units
            Number of units; by default the largest of `unit_of_image` and one.
        metadata
            Manifest column -> (n_images,) str, with those that the run was fitted with
            (``predictor.blocks``); a value that was not seen then counts as none.
        image_of_target
            (n_images, targets) bool: which images speak for which target, by `image_rules`; needed where there
            are such rules.

        Returns
        -------
        ndarray
            (n_units, targets, n_classes) float64; NaN where a unit has no image for a target. A unit's bits depend on
            its own vectors and metadata only.

        Raises
        ------
        DataError
            If vectors have another length.
        UsageError
            If units are no whole numbers, lack vectors, a number is NaN, or metadata or `image_of_target` is missing.

        Examples
        --------
        >>> run.predict(store.embeddings().vectors[:4]).shape  # four images: units, targets, classes
        (4, 1, 2)
        >>> run.predict(view.X, view.unit_of_image).shape[0] == len(view.unit_ids)
        True
        """
        if any(self.image_rules) and image_of_target is None:
            columns = sorted({rule.column for rule in self.image_rules if rule is not None})
            raise UsageError(
                f"run {self.folder} learned each target from the images that speak for it, by {', '.join(columns)}: "
                "image_of_target must say which these are (`embedstore.load_units` gives it)"
            )
        dim, vectors = self.identity.dim, np.ascontiguousarray(X, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise DataError(f"run {self.folder} wants vectors of shape (n, {dim}); found {vectors.shape}")
        owners = np.arange(len(vectors)) if unit_of_image is None else unit_numbers(unit_of_image)
        count = int(owners.max(initial=-1)) + 1 if n_units is None else n_units
        scores = self.predictor.scores(
            vectors,
            owners,
            n_units=count,
            metadata=None
            if metadata is None
            else {name: np.asarray(cells) for name, cells in metadata.items()},
            image_of_target=None if image_of_target is None else np.asarray(image_of_target, np.bool_),
        )
        return self.predictor.probabilities(scores)

    def _facts(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "run_id": self.run_id,
            "task": self.document["task"]["name"],
            "head": self.document["settings"]["head"],
            "targets": list(self.targets),
            "classes": list(self.classes),
            "metric": {
                name: round(entry["value"], 3)
                for name, entry in self.document["metrics"].items()
                if name == self.document["task"]["primary_metric"] and entry["value"] is not None
            },
        }
