"""What an encoder may offer beyond a vector: further arrays, declared in its identity."""

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.testing import check_encoder
from tests.pictures import expected_tokens, pixels_of
from tests.stores import TokenEncoder

PIXELS = np.stack([pixels_of(number) for number in range(4)])


class CheckedTokenEncoder(TokenEncoder):
    """Refuses what is no batch of pictures, as the contract wants it."""

    def encode(self, pixels):
        if pixels.dtype != np.uint8 or pixels.shape[1:] not in ((8, 8), (8, 8, 3)):
            raise UsageError(f"uint8 pixels of 8 x 8 are taken; found {pixels.dtype} of {pixels.shape}")
        return super().encode(pixels)


class CentredTokenEncoder(CheckedTokenEncoder):
    """Takes the mean of the batch away: a row depends on its company."""

    def encode_tokens(self, pixels):
        tokens = super().encode_tokens(pixels)["tokens"]
        return {"tokens": tokens - tokens.mean(axis=0)}


class NarrowTokenEncoder(CheckedTokenEncoder):
    """Returns another shape than it declares."""

    def encode_tokens(self, pixels):
        return {"tokens": super().encode_tokens(pixels)["tokens"][..., :2]}


def test_an_encoder_of_tokens_keeps_the_contract_and_its_stream_returns_them():
    encoder = CheckedTokenEncoder()
    check_encoder(encoder, PIXELS)
    (encoded,) = encoder.open_stream().put(PIXELS)
    np.testing.assert_array_equal(encoded.further["tokens"], expected_tokens(4))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (CentredTokenEncoder, "of picture 0 alone: vectors must have the same bits"),
        (NarrowTokenEncoder, r"must be float32 of shape \(4, 2, 3\)"),
    ],
)
def test_the_contract_refuses_tokens_of_another_shape_or_that_depend_on_the_batch(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_encoder(broken(), PIXELS)
