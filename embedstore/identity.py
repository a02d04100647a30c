"""What a vector is: the encoder, its weights, the preprocessing, the pooling, the arithmetic.

Two identities never mix in a store, an index, a run or a query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embedstore.errors import DataError, IdentityMismatch
from embedstore.files import canonical_json, sha256_bytes


@dataclass(frozen=True)
class Identity:
    """The identity of an embedding.

    Parameters
    ----------
    encoder
        Registered name, or the base name of a weights folder (``hog``, ``medsiglip-448``).
    revision
        Revision of the weights or of the algorithm; with `weights_sha256` it says which encoder it was.
    weights_sha256
        Digest of the weights, or ``"none"`` for an encoder without weights.
    preprocess
        The frozen specification of decode -> encoder input, as plain JSON values.
    pooling
        How patch tokens become one vector (``map``, ``mean``, ``cells``).
    compute_dtype
        Arithmetic of the forward pass: ``float32``, ``bfloat16`` or ``float16``.
    dim
        Length of a vector.
    options
        The encoder's own options (``{"channels": 16}``), plain JSON values; an encoder without any has an
        identity that does not mention them.
    """

    encoder: str
    revision: str
    weights_sha256: str
    preprocess: Mapping[str, Any] = field(hash=False)
    pooling: str
    compute_dtype: str
    dim: int
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """Return the identity as plain JSON values."""
        document = asdict(self) | {"preprocess": dict(self.preprocess), "options": dict(self.options)}
        # Left out where there are none, so that identities from before encoders had options stay the same.
        if not self.options:
            del document["options"]
        return document

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return sha256_bytes(canonical_json(self.to_json()))

    def differences(self, other: Identity) -> dict[str, tuple[Any, Any]]:
        """Return ``{field: (mine, other's)}`` for every field that differs; nested ones are dotted."""
        mine, theirs = _flatten(self.to_json()), _flatten(other.to_json())
        return {
            name: (mine.get(name), theirs.get(name))
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        }

    def require_same(self, other: Identity, *, holder: str) -> None:
        """Refuse another identity.

        Parameters
        ----------
        other
            The identity that is about to be used together with this one.
        holder
            What holds this identity, for the message (a store's path, a run's).

        Raises
        ------
        IdentityMismatch
            With every field that differs, both values of each.
        """
        fields = self.differences(other)
        if not fields:
            return
        listed = "; ".join(
            f"{name}: {mine!r} there, {theirs!r} asked" for name, (mine, theirs) in fields.items()
        )
        raise IdentityMismatch(
            f"{holder} holds embeddings of another identity, which never mix. Differing: {listed}. "
            f"Use the encoder and preprocess of {holder}, or another store."
        )


def identity_from_json(document: Mapping[str, Any], *, source: str) -> Identity:
    """Build an identity from plain JSON values.

    Parameters
    ----------
    document
        What `Identity.to_json` returned.
    source
        The file it was read from, for the message.

    Raises
    ------
    DataError
        If a field is missing or unknown.
    """
    try:
        return Identity(**document)
    except TypeError as error:
        raise DataError(f"{source}: not an identity ({error}); found fields {sorted(document)}") from error


def _flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in document.items():
        if isinstance(entry, Mapping):
            flat |= _flatten(entry, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = entry
    return flat
