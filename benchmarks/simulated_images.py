"""Collections of images like embeddings of real ones: a few axes with meaning, many with little, patients with several.

Each image has a few hidden traits, partly its patient's and partly its own. Its vector is a linear mixture of these and
of noise whose spread decays from axis to axis; the log odds of its study's label are a linear function of the patient's
traits and the product of two of them, which only a head with curves can learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.task import Task
from heads.inputs.unit_images import UnitImages

Floats = npt.NDArray[np.float64]
TASK = Task(
    "simulated", "study", ("finding",), ("absent", "present"), pa.table({"unit_id": [], "finding": []})
)
_DECAY = 0.5
# Share of a trait's variance that all images of a patient have in common.
_OF_PATIENT = 0.8


@dataclass(frozen=True, kw_only=True)
class World:
    """From what collections are drawn.

    Parameters
    ----------
    dim
        Length of a vector.
    traits
        Hidden traits of an image.
    signal
        Spread of the log odds of the label over patients; 0 makes labels that have nothing to do with the images.
    curved
        Share of that spread's variance that no linear head can learn.
    noise
        Spread of the noise along its widest axis; a trait spreads by 1.
    prevalence
        Share of studies with the finding, 0 to 1.
    seed
        Of the mixture and of what traits mean.
    """

    dim: int = 96
    traits: int = 10
    signal: float = 2.5
    curved: float = 0.2
    noise: float = 1.5
    prevalence: float = 0.3
    seed: int = 0

    def draw(self, images: int, *, seed: int) -> UnitImages:
        """Return about `images` images of patients with one or two studies of one to three images each."""
        own = np.random.default_rng(self.seed)
        mixture = own.normal(size=(self.traits, self.dim)) / np.sqrt(self.dim)
        axes = np.linalg.qr(own.normal(size=(self.dim, self.dim)))[0]
        spread = self.noise / np.sqrt(self.dim) * np.arange(1, self.dim + 1) ** -_DECAY
        meaning = own.normal(size=self.traits)
        generator = np.random.default_rng([self.seed, seed])
        patients = max(2, round(images / 3))  # of 1.5 studies of 2 images
        patient_of_study = np.repeat(np.arange(patients), generator.integers(1, 3, patients))
        study_of_image = np.repeat(
            np.arange(len(patient_of_study)), generator.integers(1, 4, len(patient_of_study))
        )
        of_patient = generator.normal(size=(patients, self.traits))
        odds = self._log_odds(of_patient, meaning)[patient_of_study]
        y = (generator.random(len(odds)) < 1 / (1 + np.exp(-odds))).astype(np.int64)
        of_image = np.sqrt(_OF_PATIENT) * of_patient[patient_of_study[study_of_image]] + np.sqrt(
            1 - _OF_PATIENT
        ) * generator.normal(size=(len(study_of_image), self.traits))
        noise = (generator.normal(size=(len(study_of_image), self.dim)) * spread * np.sqrt(self.dim)) @ axes
        X = (of_image @ mixture * np.sqrt(self.dim) + noise).astype(np.float32)
        return UnitImages(X=X, metadata={}, unit_of_row=study_of_image, y=y[:, None], groups=patient_of_study)

    def _log_odds(self, traits: Floats, meaning: Floats) -> Floats:
        """Return the log odds of the finding for (n, traits) traits, of the world's prevalence on the whole."""
        many = np.random.default_rng([self.seed, 1 << 20]).normal(size=(20_000, self.traits))
        weight = meaning / np.linalg.norm(meaning)

        def centred(of: Floats) -> Floats:
            odds = np.sqrt(1 - self.curved) * (of @ weight) + np.sqrt(self.curved) * of[:, 0] * of[:, 1]
            return np.asarray(self.signal * odds)

        low, high = -20.0, 20.0
        for _ in range(60):
            middle = (low + high) / 2
            share = (1 / (1 + np.exp(-(centred(many) + middle)))).mean()
            low, high = (middle, high) if share < self.prevalence else (low, middle)
        return centred(traits) + low
