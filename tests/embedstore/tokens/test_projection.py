"""The projection of tokens against NumPy's QR."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.tokens.projection import token_projection


@pytest.mark.parametrize(("width", "kept"), [(1152, 64), (8, 7), (2, 1)])
def test_the_projection_is_the_qr_of_random_integers(width, kept):
    drawn = hashlib.shake_256(f"embedstore tokens 0 {width} {kept}".encode()).digest(width * kept * 8)
    centred = np.frombuffer(drawn, np.uint8).reshape(width, kept, 8).sum(axis=2) - 1020.0
    q, r = np.linalg.qr(centred)
    matrix = token_projection(width, kept)
    np.testing.assert_allclose(matrix, q * np.sign(np.diag(r)), atol=1e-6)
    np.testing.assert_allclose(matrix.T.astype(float) @ matrix, np.eye(kept), atol=1e-6)


def test_the_projection_has_the_same_bits_everywhere():
    # The digest is part of the identities of stores that exist.
    digest = hashlib.sha256(token_projection(1152, 64).tobytes()).hexdigest()
    assert digest == "a9dc49c0a2bc246e8534b09aea84dafa824e9f0e78e5eabacd4ffdd255733ae2"


@pytest.mark.parametrize("kept", [0, 8, 9])
def test_a_projection_to_no_fewer_numbers_is_refused(kept):
    with pytest.raises(UsageError, match=f"must keep 1 to 7 numbers; found {kept}"):
        token_projection(8, kept)
