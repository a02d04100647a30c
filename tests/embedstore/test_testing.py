"""The shipped contract tests of encoders and readers say what is broken, one breach after the other."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from embedstore.datasets.base import Collection
from embedstore.encoders.base import Encoded, EncoderDefaults
from embedstore.errors import UsageError
from embedstore.identity import Identity
from embedstore.images.preprocess import PreprocessSpec
from embedstore.manifest import manifest_from_columns
from embedstore.testing import check_encoder, check_encoder_options, check_reader, example_pictures
from tests.paths import PROJECT

SPEC = PreprocessSpec("pad", size_px=8)


class Brightness(EncoderDefaults):
    """A sound encoder: mean and largest level, times a factor."""

    name, device, preprocess, factor = "brightness", "cpu", SPEC, 1

    def __init__(self, *, device="auto", factor=1):
        self.factor = factor

    @property
    def identity(self):
        options = {"factor": self.factor}
        return Identity("brightness", "1", "none", SPEC.to_json(), "mean", "float32", 2, options=options)

    def load(self):
        pass

    def encode(self, pixels):
        if pixels.dtype != np.uint8 or pixels.shape[1:3] != (8, 8):
            raise UsageError(f"takes uint8 of shape (n, 8, 8); found {pixels.dtype} of {pixels.shape}")
        grey = pixels if pixels.ndim == 3 else pixels[..., 0]
        flat = grey.reshape(len(grey), 64).astype(np.float32)
        return np.stack([flat.mean(axis=1), flat.max(axis=1)], axis=1) * np.float32(self.factor)


class OtherName(Brightness):
    name = "shine"


class OtherPixels(Brightness):
    preprocess = PreprocessSpec("hf", size_px=8)


class Doubles(Brightness):
    def encode(self, pixels):
        return super().encode(pixels).astype(np.float64)


class Infinite(Brightness):
    def encode(self, pixels):
        return super().encode(pixels) * np.float32(np.inf)


class Forgetful(Brightness):
    def load(self):
        self.factor += 1


class Company(Brightness):
    def encode(self, pixels):
        return super().encode(pixels) + np.float32(len(pixels) / 4)


class Ranked(Brightness):
    """Right alone; wrong when the order changes."""

    def encode(self, pixels):
        vectors = super().encode(pixels)
        return vectors + np.float32(0.5) if len(vectors) > 2 and vectors[0, 0] < vectors[-1, 0] else vectors


class Colourful(Brightness):
    def encode(self, pixels):
        return super().encode(pixels) + np.float32(pixels.ndim == 4)


class LosesABatch(Brightness):
    def open_stream(self):
        stream = super().open_stream()
        stream.put = lambda pixels: []
        return stream


class MixesTheStream(Brightness):
    def open_stream(self):
        stream = super().open_stream()
        stream.encode = lambda pixels: self.encode(pixels[::-1])
        return stream


class Timeless(Brightness):
    def open_stream(self):
        stream = super().open_stream()
        put = stream.put
        stream.put = lambda pixels: [Encoded(encoded.vectors, 0.0) for encoded in put(pixels)]
        return stream


class TakesAnything(Brightness):
    def encode(self, pixels):
        if pixels.ndim == 3 and pixels.shape[1] == 7:
            return np.zeros((len(pixels), 2), np.float32)
        return super().encode(pixels)


class SaysNothing(Brightness):
    def encode(self, pixels):
        try:
            return super().encode(pixels)
        except UsageError:
            raise UsageError("no") from None


def test_a_sound_encoder_passes_and_its_vectors_come_back():
    pictures = example_pictures(SPEC)
    assert pictures.shape == (5, 8, 8)
    vectors = check_encoder(Brightness())
    np.testing.assert_array_equal(vectors[:, 1], pictures.reshape(5, 64).max(axis=1))
    check_encoder_options(Brightness, {"factor": 3})


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (OtherName, "must be the encoder's name 'shine'; found 'brightness'"),
        (OtherPixels, "identity.preprocess must be preprocess.to_json"),
        (Doubles, r"must return float32 of shape \(5, 2\); found float64"),
        (Infinite, "must return finite numbers"),
        (Forgetful, "identity must stay the same when weights are loaded"),
        (Company, "picture 0 alone: vectors must have the same bits; the largest difference is 1"),
        (Ranked, "the pictures in reverse order: vectors must have the same bits"),
        (Colourful, "grey pictures as RGB: vectors must have the same bits"),
        (LosesABatch, "must return each of 2 batches once; found 0"),
        (MixesTheStream, "pictures through a stream: vectors must have the same bits"),
        (Timeless, "busy_s above 0"),
        (TakesAnything, r"encode must raise UsageError for uint8 of shape \(5, 7, 8\)"),
        (SaysNothing, "must say that uint8 is taken; found: no"),
    ],
)
def test_each_breach_of_an_encoder_is_named(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_encoder(broken())


class Silent(Brightness):
    @property
    def identity(self):
        return replace(super().identity, options={})


class AsText(Brightness):
    @property
    def identity(self):
        return replace(super().identity, options={"factor": str(self.factor)})


@pytest.mark.parametrize("broken", [Silent, AsText])
def test_an_option_that_is_not_in_the_identity_is_named(broken):
    with pytest.raises(AssertionError, match=r"identity.options must state 'factor' as 3; found (None|'3')"):
        check_encoder_options(broken, {"factor": 3})


def test_the_default_is_no_change():
    with pytest.raises(AssertionError, match="factor=1 must have another identity than the default"):
        check_encoder_options(Brightness, {"factor": 1})


class Reader:
    """Two images of two patients in files that are there; `change` breaks what it read."""

    name = "files"

    def __init__(self, change=lambda collection, count: collection):
        self.change = change
        self.count = 0

    def read(self, root):
        self.count += 1
        columns = {
            "image_id": ["a", "b"],
            "path": ["a.png", "b.png"],
            "frame": [0, 0],
            "patient_id": ["p", "q"],
        }
        manifest = manifest_from_columns(columns, source="test")
        collection = Collection("files", root, manifest, summary={"images": 2, "patients": 2})
        return self.change(collection, self.count)


def with_columns(**columns):
    base = {"image_id": ["a", "b"], "path": ["a.png", "b.png"], "frame": [0, 0], "patient_id": ["p", "q"]}
    return manifest_from_columns({**base, **columns}, source="test")


@pytest.fixture
def root(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_sound_reader_passes(root):
    assert len(check_reader(Reader(), root, knows_patients=True).manifest) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda found, count: replace(found, dataset="other"),
            "must be the reader's name 'files'; found 'other'",
        ),
        (
            lambda found, count: replace(found, manifest=with_columns(extra=[count, count])),
            "must give the same manifest in the same order",
        ),
        (
            lambda found, count: replace(found, summary={**found.summary, "read": count}),
            "must give the same summary",
        ),
        (
            lambda found, count: replace(found, manifest=with_columns(frame=[0, None])),
            "must have a frame",
        ),
        (
            lambda found, count: replace(found, manifest=with_columns(path=["a.png", "c.png"])),
            "must count the records without a file: 1; found 0",
        ),
        (
            lambda found, count: replace(found, summary={"images": 3, "patients": 2}),
            "summary's 'images' must be 2; found 3",
        ),
        (
            lambda found, count: replace(found, manifest=with_columns(patient_id=["p", None])),
            "must name its patient",
        ),
        (
            lambda found, count: replace(found, manifest=with_columns(study_id=["s", "s"])),
            "summary's 'studies' must be 1; found None",
        ),
        (
            lambda found, count: replace(found, summary={**found.summary, "folder": "/data/mine"}),
            "paths must be relative to the root",
        ),
    ],
)
def test_each_breach_of_a_reader_is_named(root, change, said):
    with pytest.raises(AssertionError, match=said):
        check_reader(Reader(change), root, knows_patients=True)


def test_the_contract_tests_need_no_test_library():
    code = (
        "import sys, embedstore.testing, heads.testing\n"
        "print(sorted({'pytest', '_pytest', 'hypothesis'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
