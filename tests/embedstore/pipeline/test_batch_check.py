"""An extraction notices, once, an encoder whose rows depend on their batch."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.encoders.base import Encoded
from embedstore.errors import PluginError
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.pipeline.batch_check import BatchCheck
from embedstore.store.reader import VALID, open_store
from tests.pictures import collection_of, expected_vectors, write_pictures
from tests.stores import MeanEncoder

OPTIONS = ExtractOptions(chunk_rows=4, batch_size=3, workers=2)


class CompanyEncoder(MeanEncoder):
    """Adds a quarter for each further picture of the batch, as a batch statistic would."""

    def encode(self, pixels):
        return super().encode(pixels) + np.float32(0.25 * (len(pixels) - 1))


class CountingEncoder(MeanEncoder):
    def __init__(self):
        super().__init__()
        self.batches = []

    def encode(self, pixels):
        self.batches.append(len(pixels))
        return super().encode(pixels)


class LateStream:
    """Holds two batches back, and adds `error` to the vectors of the batches that `wrong` names."""

    def __init__(self, encoder):
        self.encoder, self.held, self.count = encoder, [], 0

    def put(self, pixels):
        vectors = self.encoder.encode(pixels)
        if self.count in self.encoder.wrong:
            vectors = vectors + np.float32(0.5)
        self.count += 1
        self.held.append(Encoded(vectors, 1.0))
        through, self.held = self.held[:-2], self.held[-2:]
        return through

    def drain(self):
        through, self.held = self.held, []
        return through


class LateEncoder(MeanEncoder):
    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    def open_stream(self):
        return LateStream(self)


def batches(*counts):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (count, 8, 8), dtype=np.uint8) for count in counts]


def test_an_encoder_whose_rows_depend_on_their_batch_stops_with_the_difference_and_the_remedy(tmp_path):
    write_pictures(tmp_path / "images", range(6))
    with pytest.raises(PluginError) as caught:
        extract(collection_of(tmp_path / "images", 6), tmp_path / "s", CompanyEncoder(), options=OPTIONS)
    line = str(caught.value)
    assert "encoder 'mean' gives an image another vector alone than in a batch" in line
    assert "largest difference 0.5" in line
    assert "embedstore.encoders.torch_module" in line
    assert not (open_store(tmp_path / "s").status == VALID).any()


def test_one_picture_more_is_encoded_once_however_many_chunks_there_are(tmp_path):
    write_pictures(tmp_path / "images", range(18))
    encoder = CountingEncoder()
    extract(collection_of(tmp_path / "images", 18), tmp_path / "s", encoder, options=OPTIONS)
    # Chunks of four in batches of three: 3, 1, 3, 1, ..., 2, and the one picture alone before the first.
    assert encoder.batches == [1, 3, 1, 3, 1, 3, 1, 3, 1, 2]
    vectors = open_store(tmp_path / "s").embeddings().vectors
    np.testing.assert_array_equal(vectors, expected_vectors(18).astype(np.float16))


@pytest.mark.parametrize(("wrong", "raises"), [({0}, False), ({1}, True), ({2}, False)])
def test_the_first_batch_with_several_is_compared_however_late_it_comes_out(wrong, raises):
    check = BatchCheck()
    stream = check.open_stream(LateEncoder(wrong))
    outcome = []
    try:
        for batch in batches(1, 3, 2, 2):
            outcome += stream.put(batch)
        outcome += stream.drain()
    except PluginError:
        assert raises
    else:
        assert not raises
        assert [len(encoded.vectors) for encoded in outcome] == [1, 3, 2, 2]
    assert check.done
    # A second stream of the same work is not checked again.
    again = check.open_stream(LateEncoder({0}))
    for batch in batches(2, 2):
        again.put(batch)
    assert len(again.drain()) == 2


def test_a_row_of_nan_is_the_same_alone_and_in_company():
    class NanEncoder(MeanEncoder):
        def encode(self, pixels):
            return np.full((len(pixels), 4), np.nan, np.float32)

    (encoded,) = BatchCheck().open_stream(NanEncoder()).put(batches(3)[0])
    assert np.isnan(encoded.vectors).all()


def test_passes_that_became_smaller_for_want_of_memory_are_no_breach():
    class SmallerEncoder(MeanEncoder):
        """Its last bits change after the first call, as when a device's passes are halved."""

        calls = 0

        def encode(self, pixels):
            self.calls += 1
            return super().encode(pixels) + np.float32(0.5 * (self.calls > 1))

    (encoded,) = BatchCheck().open_stream(SmallerEncoder()).put(batches(3)[0])
    assert len(encoded.vectors) == 3
