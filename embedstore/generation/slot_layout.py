"""Where the 25 codes stand among the tokens of a compact answer, so that one pass can be read at each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.severity_codes import CODES, write_response

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class SlotLayout:
    """The compact answer as tokens.

    Parameters
    ----------
    skeleton
        Tokens of the answer whose codes are all N.
    positions
        (25,) int64: place of each target's code among them, in the order of `TARGETS`.
    code_ids
        (25, 3) int64: token of N, M and S at each of these places.
    """

    skeleton: tuple[int, ...]
    positions: npt.NDArray[np.int64]
    code_ids: npt.NDArray[np.int64]

    def answer_ids(self, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return (n, length) tokens of answers: (n, 25) classes 0, 1, 2 in the order of `TARGETS`."""
        ids = np.tile(np.asarray(self.skeleton, np.int64), (len(classes), 1))
        ids[:, self.positions] = np.take_along_axis(self.code_ids[None], classes[..., None], axis=2)[..., 0]
        return ids

    def require_same(self, encode: Encode, classes: npt.NDArray[np.int64]) -> None:
        """Refuse a tokenizer that writes these answers otherwise than slot by slot; raises UsageError."""
        for row, ids in zip(classes, self.answer_ids(classes), strict=True):
            if list(encode(write_response(row.tolist()))) != ids.tolist():
                raise _no_single_token("codes beside each other are joined to other tokens")


def slot_layout(encode: Encode) -> SlotLayout:
    """Find the codes among the tokens of the compact answer.

    Parameters
    ----------
    encode
        Text -> tokens, without tokens before or after.

    Raises
    ------
    UsageError
        If a code is not one token of its own in its place, whichever of the three it is: probabilities of slots
        cannot be read in one pass then.
    """
    n_targets = len(TARGETS)
    skeleton = list(encode(write_response([0] * n_targets)))
    positions = np.full(n_targets, -1, np.int64)
    code_ids = np.zeros((n_targets, len(CODES)), np.int64)
    for target in range(n_targets):
        for code in range(1, len(CODES)):
            written = list(encode(write_response([code * (at == target) for at in range(n_targets)])))
            changed = [
                at for at, pair in enumerate(zip(skeleton, written, strict=False)) if pair[0] != pair[1]
            ]
            is_one = len(written) == len(skeleton) and len(changed) == 1
            if not is_one or positions[target] not in (-1, changed[0]):
                raise _no_single_token(
                    f"{CODES[0]} and {CODES[code]} of {TARGETS[target]} differ by other than one token"
                )
            positions[target] = changed[0]
            code_ids[target, code] = written[changed[0]]
        code_ids[target, 0] = skeleton[positions[target]]
        if len(set(code_ids[target].tolist())) < len(CODES):
            raise _no_single_token(f"two codes of {TARGETS[target]} have the same token")
    if positions.min() < 1:
        raise _no_single_token("a code is the first token of the answer")
    return SlotLayout(skeleton=tuple(skeleton), positions=positions, code_ids=code_ids)


def _no_single_token(found: str) -> UsageError:
    return UsageError(
        "`score_slots` needs a tokenizer in which N, M and S are one token each in their place in the compact answer; "
        f"found that {found}. Leave it out for this model"
    )
