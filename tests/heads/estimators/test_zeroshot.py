from dataclasses import replace

import numpy as np
import pytest

from embedstore.errors import DataError, UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.task import Task
from heads.base import Training
from heads.estimators.zeroshot import (
    PROMPTS_FILE,
    ZeroShotFamily,
    ZeroShotHead,
    prompts_of,
    read_prompts,
    zeroshot_family,
    zeroshot_head,
)
from tests.embedstore.test_task import LABELS
from tests.views import make_view, probed


def test_two_classes_are_scored_by_scale_times_the_difference_of_cosines():
    head = zeroshot_head(np.array([[2.0, 0.0], [0.0, 5.0]]), scale=10.0, bias=-3.0)
    X = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], np.float32)
    # Cosines to the classes: (0.6, 0.8), (1, 0), (0, 0).
    np.testing.assert_allclose(head.decision_function(X), [2.0, -10.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(head.predict_proba(X)[:, 1], 1 / (1 + np.exp([-2.0, 10.0, 0.0])), rtol=1e-9)


def test_several_classes_are_scored_by_scale_times_cosine_and_bias():
    head = zeroshot_head(np.eye(3), scale=5.0, bias=-1.0)
    scores = head.decision_function(np.array([[0.0, 2.0, 0.0]], np.float32))
    np.testing.assert_allclose(scores, [[-1.0, 4.0, -1.0]], atol=1e-9)


def test_a_head_survives_its_arrays_bit_for_bit_and_a_row_knows_no_company():
    generator = np.random.default_rng(0)
    head = zeroshot_head(generator.standard_normal((3, 16)), scale=7.3, bias=0.1)
    again = ZeroShotHead.from_arrays(head.to_arrays(), head.get_params())
    X = generator.standard_normal((50, 16)).astype(np.float32)
    np.testing.assert_array_equal(head.decision_function(X), again.decision_function(X))
    alone = np.concatenate([head.decision_function(X[row : row + 1]) for row in range(50)])
    np.testing.assert_array_equal(head.decision_function(X), alone)


class VowelTower:
    """Gives each text a vector of its length and its number of vowels."""

    logit_scale = 3.0
    logit_bias = 0.0

    def encode(self, texts):
        return np.array(
            [[len(text), sum(letter in "aeiou" for letter in text)] for text in texts], np.float32
        )


def make_task(name="t", targets=("fracture",), classes=("no", "yes")):
    return Task(name, "study", targets, classes, LABELS.rename_columns(["unit_id", targets[0]]).slice(0, 0))


def test_prompts_of_a_class_are_averaged_as_unit_vectors():
    prompts = {"t": {"*": {"no": ["aaa", "bbbb"], "yes": ["ab"]}}}
    family = zeroshot_family(make_task(), VowelTower(), prompts=prompts)
    average = np.array([3, 3]) / np.sqrt(18) / 2 + np.array([4, 0]) / 4 / 2
    expected = np.stack([average / np.linalg.norm(average), np.array([2, 1]) / np.sqrt(5)])
    np.testing.assert_allclose(family.heads[0].text_vectors_, expected)


def test_out_of_fold_scores_are_the_heads_own_because_nothing_is_learned():
    prompts = {"t": {"fracture": {"no": ["aaa"], "yes": ["bbb"]}}}
    family = zeroshot_family(make_task(), VowelTower(), prompts=prompts)
    X = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    training = Training.of_rows(
        X,
        np.zeros((6, 1), np.int64),
        sample_weight=np.ones((6, 1), np.float32),
        groups=np.arange(6),
        n_classes=2,
    )
    scores = family.out_of_fold(training, np.arange(6) % 2, seed=0).scores
    assert scores.shape == (1, 6, 1, 1)
    np.testing.assert_allclose(scores[0, :, 0, 0], family.heads[0].decision_function(X), rtol=1e-6)
    assert family.refit(training, family.points, seed=0) == [family.heads[0]]


def test_the_shipped_prompts_name_every_class_of_the_known_tasks_and_the_target_in_words():
    prompts = read_prompts(PROMPTS_FILE)
    for name in ("lumbar-severity", "stenosis"):
        lumbar = make_task(name, (TARGETS[0],), CLASSES)
        texts = prompts_of(prompts, lumbar, TARGETS[0])
        assert len(texts) == 3
        assert "spinal canal stenosis l1 l2" in texts[2][0]
    assert (
        len(prompts_of(prompts, make_task("abnormal", ("abnormal",), ("normal", "abnormal")), "abnormal"))
        == 2
    )
    assert (
        len(prompts_of(prompts, make_task("opacity", ("opacity",), ("no opacity", "opacity")), "opacity"))
        == 2
    )


def test_missing_prompts_vectors_of_nothing_and_fitting_are_refused(tmp_path):
    with pytest.raises(DataError, match="must hold a list of texts for class 'no'"):
        prompts_of({}, make_task(), "fracture")
    with pytest.raises(DataError, match="is no prompts file"):
        read_prompts(tmp_path / "gone.toml")
    with pytest.raises(DataError, match="finite and not zero"):
        zeroshot_head(np.zeros((2, 3)))
    with pytest.raises(UsageError, match="learns nothing from images"):
        ZeroShotHead().fit(np.zeros((2, 2)), [0, 1])
    with pytest.raises(UsageError, match="needs an encoder with a text tower"):
        ZeroShotHead.family()


def test_targets_with_images_of_their_own_are_each_scored_by_their_own_words():
    view = make_view(patients=60, targets=("canal", "left", "right"))
    generator = np.random.default_rng(0)
    heads = tuple(zeroshot_head(generator.standard_normal((2, 6)), scale=10.0) for _ in range(3))
    _, first = np.unique(view.unit_of_image, return_index=True)
    some = generator.random(len(view.image_ids)) < 0.5
    some[first] = True
    # The first and the last target have the same images.
    mask = np.stack([some, np.ones_like(some), some], axis=1)
    result = probed(
        replace(view, image_of_target=mask),
        "zeroshot",
        family=ZeroShotFamily(heads),
        pooling="mean-vector",
        draws=5,
        folds=2,
    )
    for part in (result.out_of_fold, result.evaluated):
        rows = np.searchsorted(view.unit_ids, part.unit_ids)
        for index, head in enumerate(heads):
            own = [view.X[(view.unit_of_image == row) & mask[:, index]].mean(axis=0) for row in rows]
            expected = head.decision_function(np.stack(own))
            np.testing.assert_allclose(part.scores[:, index, 0], expected, rtol=1e-4, atol=1e-4)
