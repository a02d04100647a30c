"""What a vector is: the encoder, its weights, the preprocessing, the pooling, the arithmetic.

Two identities never mix in a store, an index, a run or a query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from embedstore.errors import DataError, IdentityMismatch, UsageError
from embedstore.files import canonical_json, sha256_bytes

_ARRAY_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
# What lies in a part's folder already, and the axes whose names are given.
RESERVED_NAMES = ("vectors", "content", "receipts", "tables", "manifest", "part", "zarr")
ROW_DIMENSION, VECTOR_DIMENSION = "row", "feature"


@dataclass(frozen=True)
class ArraySpec:
    """What a row of a further array is, for an encoder that gives more than one vector per image.

    Parameters
    ----------
    row_shape
        Shape of one row, without the axis of the images: ``(1024, 64)`` for 1,024 tokens of width 64.
    dimensions
        A name for each axis of a row: ``("token", "token_feature")``. Equal names mean the same axis, so
        ``feature`` is that of the vector and is `Identity.dim` long.
    row
        What the numbers are, in a few words: ``tokens after the last layer norm``.
    projection
        How longer rows became these, plain JSON values with the digest of the matrix; empty where they are as the
        encoder has them, and then not mentioned.

    Raises
    ------
    UsageError
        If shape and names do not fit each other, or the words are missing.

    Examples
    --------
    >>> ArraySpec((1024, 64), ("token", "token_feature"), "tokens after the last layer norm").row_shape
    (1024, 64)
    """

    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    row: str
    projection: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.row_shape or any(length < 1 for length in self.row_shape):
            raise UsageError(f"row_shape must hold lengths of at least 1; found {self.row_shape}")
        if len(self.dimensions) != len(self.row_shape) or len(set(self.dimensions)) != len(self.dimensions):
            raise UsageError(
                f"dimensions must name each of the {len(self.row_shape)} axes of a row once; "
                f"found {self.dimensions}"
            )
        wrong = [name for name in self.dimensions if not _ARRAY_NAME.fullmatch(name) or name == ROW_DIMENSION]
        if wrong:
            raise UsageError(
                f"a dimension must be lower-case letters, digits and _, and not {ROW_DIMENSION!r}; "
                f"found {wrong[0]!r}"
            )
        if not self.row:
            raise UsageError("row must say in a few words what a row is; found nothing")

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain JSON values."""
        document = {"row_shape": list(self.row_shape), "dimensions": list(self.dimensions), "row": self.row}
        # Left out where there is none, so that identities from before projections stay the same.
        return document | ({"projection": dict(self.projection)} if self.projection else {})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ArraySpec:
        """Build a description from `to_json`; raises KeyError, TypeError or UsageError if damaged."""
        return cls(
            tuple(int(length) for length in document["row_shape"]),
            tuple(str(name) for name in document["dimensions"]),
            str(document["row"]),
            dict(document.get("projection", {})),
        )


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
    arrays
        Further arrays, name -> what a row of it is; most encoders have none, and their identity does not
        mention it.
    declared
        Of vectors that another tool made and that were imported: what their owner says they are, as text. Empty
        for vectors that were computed here, whose identity does not mention it.

    Raises
    ------
    UsageError
        If a further array has a name that a part uses already, or two axes of one name differ in length.
    """

    encoder: str
    revision: str
    weights_sha256: str
    preprocess: Mapping[str, Any] = field(hash=False)
    pooling: str
    compute_dtype: str
    dim: int
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    arrays: Mapping[str, ArraySpec] = field(default_factory=dict, hash=False)
    declared: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        lengths = {VECTOR_DIMENSION: self.dim}
        for name, spec in self.arrays.items():
            if not _ARRAY_NAME.fullmatch(name) or name in RESERVED_NAMES:
                raise UsageError(
                    f"a further array's name must be lower-case letters, digits and _, and none of "
                    f"{', '.join(RESERVED_NAMES)}; found {name!r}"
                )
            for dimension, length in zip(spec.dimensions, spec.row_shape, strict=True):
                known = lengths.setdefault(dimension, length)
                if known != length:
                    raise UsageError(
                        f"dimension {dimension!r} of array {name!r} must be {known} long, as elsewhere in the "
                        f"identity; found {length}. Give another axis another name"
                    )

    def to_json(self) -> dict[str, Any]:
        """Return the identity as plain JSON values."""
        document = asdict(self) | {
            "preprocess": dict(self.preprocess),
            "options": dict(self.options),
            "declared": dict(self.declared),
        }
        # Left out where there are none, so that identities from before they existed stay the same.
        if not self.options:
            del document["options"]
        if not self.declared:
            del document["declared"]
        del document["arrays"]
        if self.arrays:
            document["arrays"] = {name: self.arrays[name].to_json() for name in sorted(self.arrays)}
        return document

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return sha256_bytes(canonical_json(self.to_json()))

    @property
    def crop(self) -> Mapping[str, Any] | None:
        """By which rule its images are cut out of others; None for whole images."""
        rule: Mapping[str, Any] | None = self.preprocess.get("crop")
        return rule

    def with_crop(self, rule: Mapping[str, Any]) -> Identity:
        """Return the identity of vectors of crops that are cut by a rule of plain JSON values."""
        return replace(self, preprocess={**self.preprocess, "crop": dict(rule)})

    def differences(self, other: Identity) -> dict[str, tuple[Any, Any]]:
        """Return ``{field: (mine, other's)}`` for every field that differs; nested ones are dotted."""
        mine, theirs = _flatten(self.to_json()), _flatten(other.to_json())
        return {
            name: (mine.get(name), theirs.get(name))
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        }

    def require_computed(self, *, holder: str) -> None:
        """Refuse vectors that were imported, where the encoder that made them is needed.

        Raises
        ------
        IdentityMismatch
            If they were; `holder` is as in `require_same`.
        """
        if self.declared:
            raise IdentityMismatch(
                f"{holder} holds vectors that were imported and are declared, not computed, to be of "
                f"{self.encoder!r}: no image can be encoded for it. Import further vectors of that encoder, or use a "
                "store that was extracted"
            )

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
        if self.declared and not other.declared:
            self.require_computed(holder=holder)
        if (self.crop is None) != (other.crop is None):
            kinds = ("whole images", "crops around level points")
            held, asked = kinds if self.crop is None else kinds[::-1]
            raise IdentityMismatch(
                f"{holder} holds vectors of {held}, and those of {asked} were asked for, which never mix. "
                f"{'Leave `crops` out' if self.crop is None else 'Give `crops`'}, or use another store"
            )
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
        arrays = {name: ArraySpec.from_json(entry) for name, entry in document.get("arrays", {}).items()}
        return Identity(**{**document, "arrays": arrays})
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{source}: not an identity ({error}); found fields {sorted(document)}") from error


def _flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in document.items():
        if isinstance(entry, Mapping):
            flat |= _flatten(entry, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = entry
    return flat
