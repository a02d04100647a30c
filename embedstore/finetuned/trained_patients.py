"""Whose images taught an encoder: digests of patients, kept with the encoder and with every store made by it.

A digest hides no id that can be guessed: whoever holds the file can try ids. It is patients' data like the vectors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import Advice, DataError
from embedstore.files import canonical_json, sha256_bytes, write_durable
from embedstore.identity import Identity

PATIENTS_FILE = "trained_patients.json"
# The entry of an identity's options by which vectors of such an encoder are known.
FINETUNED = "finetuned"
TAUGHT, JUDGED = "taught", "judged"
_DIGITS = 16


@dataclass(frozen=True)
class TrainedPatients:
    """The patients whose images an encoder's weights were trained on, and those by whom the best of them were chosen.

    Parameters
    ----------
    salt
        Begins what is digested, so that lists of two bases do not compare; the same training gives the same list.
    taught, judged
        16 hexadecimal digits of SHA-256 for each patient; nobody is in both.

    Examples
    --------
    >>> trained = trained_patients(["p1", "p2"], ["p3"], salt="s")
    >>> trained.parts_of(["p2", "p3", "p4"]).tolist()
    ['taught', 'judged', '']
    """

    salt: str
    taught: frozenset[str]
    judged: frozenset[str]

    def parts_of(self, patients: Iterable[str]) -> npt.NDArray[np.str_]:
        """Return (n,) str: `TAUGHT`, `JUDGED` or ``""`` for each patient."""
        digests = [_digest(self.salt, patient) for patient in patients]
        parts = [TAUGHT if one in self.taught else JUDGED if one in self.judged else "" for one in digests]
        return np.array(parts, "<U6")

    def with_earlier(self, other: TrainedPatients) -> TrainedPatients:
        """Return both lists as one, of a training that went on from another; whoever taught once has taught."""
        taught = self.taught | other.taught
        return TrainedPatients(self.salt, taught, (self.judged | other.judged) - taught)

    @property
    def sha256(self) -> str:
        """Digest of the list, as the encoder's identity states it."""
        return sha256_bytes(canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"salt": self.salt, "taught": sorted(self.taught), "judged": sorted(self.judged)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], *, source: str) -> TrainedPatients:
        """Build a list from `to_json`; raises DataError if it is none."""
        try:
            taught, judged = (frozenset(map(str, document[name])) for name in (TAUGHT, JUDGED))
            return cls(str(document["salt"]), taught, judged)
        except (KeyError, TypeError) as error:
            raise DataError(f"{source} must hold a salt and digests of patients; found {error!r}") from error


def trained_patients(taught: Iterable[str], judged: Iterable[str], *, salt: str) -> TrainedPatients:
    """Return the list of some patients."""
    own = frozenset(_digest(salt, patient) for patient in taught)
    return TrainedPatients(salt, own, frozenset(_digest(salt, patient) for patient in judged) - own)


def patients_digest_of(identity: Identity) -> str | None:
    """Return the digest of the patients that vectors' encoder was trained on; None where it was not fine-tuned here."""
    facts = identity.options.get(FINETUNED)
    return None if facts is None else str(facts["patients_sha256"])


def keep_list(store: Path, identity: Identity, source: Path) -> None:
    """Keep with a store the list of patients that its encoder's folder has; nothing for other encoders.

    Parameters
    ----------
    store
        The store's folder.
    identity
        Of its vectors.
    source
        The encoder's folder.
    """
    wanted, kept = patients_digest_of(identity), store / PATIENTS_FILE
    if wanted is None or (kept.is_file() and _read(kept).sha256 == wanted):
        return
    write_durable(kept, canonical_json(_read(source / PATIENTS_FILE).to_json()), label="trained-patients")


def patients_of_store(store: Path, identity: Identity) -> TrainedPatients | None:
    """Return whom a store's encoder was trained on; None where it was not fine-tuned here.

    Raises
    ------
    DataError
        If the list is missing, or not the one that the identity names: nobody could say then who was seen before.
    """
    wanted, path = patients_digest_of(identity), store / PATIENTS_FILE
    if wanted is None:
        return None
    if not path.is_file():
        raise DataError(
            f"store {store} holds vectors of a fine-tuned encoder, and lacks {PATIENTS_FILE}, the list of patients "
            "that it was trained on; copy it from the encoder's folder",
            advice=Advice.EXTRACT,
        )
    found = _read(path)
    if found.sha256 != wanted:
        raise DataError(
            f"{path} must be the list of patients that the encoder was trained on (sha256 {wanted[:12]}); found "
            f"{found.sha256[:12]}. Copy it from the encoder's folder",
            advice=Advice.EXTRACT,
        )
    return found


def parts_in_training(
    store: Path, identity: Identity, patients: Iterable[str]
) -> npt.NDArray[np.str_] | None:
    """Return what part each patient had in the fine-tuning of a store's encoder; raises as `patients_of_store`."""
    found = patients_of_store(store, identity)
    return None if found is None else found.parts_of(patients)


def _read(path: Path) -> TrainedPatients:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; copy it from the encoder's folder") from error
    return TrainedPatients.from_json(document, source=str(path))


def _digest(salt: str, patient: str) -> str:
    return sha256_bytes(f"{salt}\0{patient}".encode())[:_DIGITS]
