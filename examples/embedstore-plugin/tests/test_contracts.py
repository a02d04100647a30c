"""The shipped contract tests hold for all three; what is the package's own follows below."""

from __future__ import annotations

import numpy as np
import pytest
from embedstore_example.dataset import ClassFolders
from embedstore_example.encoder import SIZE_PX, gabor_filters, oriented_energy
from embedstore_example.head import DiagonalFamily, DiagonalHead
from PIL import Image
from sklearn.naive_bayes import GaussianNB
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedstore.errors import DataError, UsageError
from embedstore.testing import check_encoder, check_encoder_options, check_reader
from heads.testing import check_chance, check_family, check_head


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for kind in ("lying", "standing"):
        for patient in range(3):
            place = tmp_path / kind / f"patient{patient}"
            place.mkdir(parents=True)
            for image in range(2):
                pixels = generator.integers(0, 256, (20, 30), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{image}.png")
    return tmp_path


def test_the_encoder_keeps_the_contract():
    check_encoder(oriented_energy(device="cpu"))
    check_encoder_options(oriented_energy, {"orientations": 4})


def test_stripes_answer_to_the_filter_across_them():
    columns = np.arange(SIZE_PX)
    upright = np.tile((127 + 120 * np.sin(2 * np.pi * columns / 5)).astype(np.uint8), (SIZE_PX, 1))
    vectors = oriented_energy(device="cpu", orientations=2).encode(np.stack([upright, upright.T]))
    energy = vectors.reshape(2, 2, -1).mean(axis=2)  # picture, orientation
    assert energy[0, 0] > 10 * energy[0, 1]
    assert energy[1, 1] > 10 * energy[1, 0]
    assert gabor_filters(2).shape == (2, 1, 9, 9)


def test_a_number_of_orientations_that_is_none_is_refused():
    with pytest.raises(UsageError, match="orientations must be a whole number from 1; found 0"):
        oriented_energy(orientations=0)


def test_the_reader_keeps_the_contract(folder):
    collection = check_reader(ClassFolders(), folder, knows_patients=True)
    (task,) = collection.tasks
    assert task.classes == ("lying", "standing")
    assert collection.summary == {"images": 12, "patients": 3}
    assert collection.manifest.column("image_id")[0] == "lying/patient0/0.png"


def test_a_folder_of_something_else_is_refused(folder):
    with pytest.raises(DataError, match=r"two classes or more; found 0 images of 0 classes"):
        ClassFolders(suffix=".dcm").read(folder)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_head_keeps_the_contract(n_classes):
    check_head(DiagonalHead(), n_classes=n_classes)
    check_family(DiagonalFamily(), DiagonalHead, n_classes=n_classes)


def test_labels_without_signal_give_chance():
    check_chance(DiagonalFamily(), worse_by=0.05)


def test_scores_are_those_of_naive_bayes_with_shared_variances():
    generator = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = generator.normal(size=(40, 3)) + y[:, None]
    means = np.stack([X[y == k].mean(axis=0) for k in (0, 1)])
    bayes = GaussianNB().fit(X, y)
    bayes.var_[:] = ((X - means[y]) ** 2).mean(axis=0)
    head = DiagonalHead(shrinkage=0.0).fit(X, y)
    np.testing.assert_allclose(head.predict_proba(X), bayes.predict_proba(X), rtol=1e-4)


@parametrize_with_checks([DiagonalHead()])
def test_the_head_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)
