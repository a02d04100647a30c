"""What the owner of imported vectors says they are, as an identity that never passes for a computed one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedstore.errors import UsageError
from embedstore.identity import Identity

ENCODER = "encoder"
UNKNOWN = "unknown"


def parse_declaration(texts: Sequence[str]) -> dict[str, str]:
    """Return ``{"encoder": "uni2", "patch_px": "256"}`` of ``["encoder=uni2,patch_px=256"]``.

    Raises
    ------
    UsageError
        If a piece is no NAME=VALUE, a name stands twice, or the encoder is missing.
    """
    declared: dict[str, str] = {}
    for piece in (piece for text in texts for piece in text.split(",")):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not equals or not name or not value:
            raise UsageError(f"`declare` takes NAME=VALUE,NAME=VALUE,...; found {piece!r}")
        if name in declared:
            raise UsageError(f"`declare` says {name!r} twice: {declared[name]!r} and {value!r}")
        declared[name] = value
    return declared


def declared_identity(declared: Mapping[str, str], *, dim: int) -> Identity:
    """Return the identity of imported vectors.

    Parameters
    ----------
    declared
        Fact -> text; ``encoder`` at least. ``revision``, ``weights_sha256``, ``pooling`` and ``compute_dtype`` fill the
        fields of these names, which are ``unknown`` otherwise.
    dim
        Length of a vector.

    Raises
    ------
    UsageError
        If the encoder is missing.
    """
    if not declared.get(ENCODER):
        raise UsageError(
            f"`declare` must name the encoder that made the vectors, {ENCODER}=NAME at least (revision=..., "
            f"weights_sha256=..., and what else two sets of vectors may differ in); found {dict(declared) or 'nothing'}"
        )
    return Identity(
        encoder=declared[ENCODER],
        revision=declared.get("revision", UNKNOWN),
        weights_sha256=declared.get("weights_sha256", UNKNOWN),
        preprocess={},
        pooling=declared.get("pooling", UNKNOWN),
        compute_dtype=declared.get("compute_dtype", UNKNOWN),
        dim=dim,
        declared=dict(sorted(declared.items())),
    )
