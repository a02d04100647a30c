"""Each row of the table of definitions in docs/protocols.md, against the library that has another one."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as reference
from sklearn.calibration import calibration_curve
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression

from heads.intervals.rule_of_three import rule_of_three
from heads.statistics import metric_functions as metrics
from heads.statistics.bootstrap import draw_patients, estimate, weighted_mean
from heads.statistics.conformal import conformal_sets, patients_needed
from tests.paths import PROJECT


def _both(positive: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - positive, positive])


def _cases(n: int = 300, n_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = generator.integers(0, n_classes, n)
    odds = generator.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[y]
    return y, np.exp(odds) / np.exp(odds).sum(1, keepdims=True)


def ece_of_two_classes() -> None:
    y, p = _cases()
    shares, means = calibration_curve(y, p[:, 1], n_bins=10, strategy="quantile")
    assert metrics.ece(y, p, bins=10)[0] == pytest.approx(np.abs(shares - means).mean())
    wide = _equal_width(p[:, 1], y == 1, bins=10)
    assert abs(metrics.ece(y, p, bins=10)[0] - wide) > 1e-3


def ece_of_several_classes() -> None:
    y, p = _cases(n_classes=3)
    each = []
    for k in range(3):
        shares, means = calibration_curve(y == k, p[:, k], n_bins=10, strategy="quantile")
        each.append(np.abs(shares - means).mean())
    assert metrics.ece(y, p, bins=10)[0] == pytest.approx(np.mean(each))
    of_winner = _equal_width(p.max(1), p.argmax(1) == y, bins=10)
    assert abs(metrics.ece(y, p, bins=10)[0] - of_winner) > 1e-3


def auroc_of_one_class() -> None:
    y, p = np.zeros(4, int), np.array([0.1, 0.4, 0.5, 0.9])
    assert np.isnan(metrics.auroc(y, _both(p))[0])
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(reference.roc_auc_score(y, p))


def auroc_of_several_classes() -> None:
    y, p = _cases(n_classes=3)
    y, p = y[: np.flatnonzero(y == 2)[20]], p[: np.flatnonzero(y == 2)[20]]
    found = metrics.auroc(y, p)[0]
    assert found == pytest.approx(reference.roc_auc_score(y, p, multi_class="ovr", average="macro"))
    for other in ({"multi_class": "ovo"}, {"multi_class": "ovr", "average": "weighted"}):
        assert abs(reference.roc_auc_score(y, p, **other) - found) > 1e-5


def auprc() -> None:
    y, p = _cases()
    precision, recall, _ = reference.precision_recall_curve(y, p[:, 1])
    found = metrics.auprc(y, p)[0]
    assert found == pytest.approx(reference.average_precision_score(y, p[:, 1]))
    assert abs(found - reference.auc(recall, precision)) > 1e-5
    nobody = np.zeros(4, int)
    assert np.isnan(metrics.auprc(nobody, p[:4])[0])
    with pytest.warns(UserWarning, match="No positive class"):
        assert reference.average_precision_score(nobody, p[:4, 1]) == 0


def log_loss() -> None:
    y, p = np.array([0, 1]), np.array([[0.5, 0.5], [1.0, 0.0]])
    assert metrics.log_loss(y, p)[0] == pytest.approx((math.log(2) - math.log(1e-15)) / 2)
    assert reference.log_loss(y, p) == pytest.approx((math.log(2) - math.log(np.finfo(float).eps)) / 2)


def brier_score() -> None:
    y, p = _cases(n_classes=3)
    found = metrics.brier(y, p)[0]
    assert found == pytest.approx(np.mean(((p - np.eye(3)[y]) ** 2).sum(1)))
    pytest.importorskip("sklearn", minversion="1.7")
    assert reference.brier_score_loss(y, p) == pytest.approx(found)
    assert reference.brier_score_loss(y, p, scale_by_half=True) == pytest.approx(found / 2)
    y, p = _cases()
    assert reference.brier_score_loss(y, p) == pytest.approx(metrics.brier(y, p)[0])


def brier_skill() -> None:
    pytest.importorskip("sklearn", minversion="1.8")
    for n_classes in (2, 3):
        y, p = _cases(n_classes=n_classes)
        assert metrics.brier_skill(y, p)[0] == pytest.approx(reference.d2_brier_score(y, p))


def recall_precision_f1() -> None:
    absent, never = (np.zeros(3, int), np.zeros(3, int)), (np.array([0, 1]), np.zeros(2, int))
    for name, cases in (("recall", absent), ("precision", never), ("f1", absent)):
        assert np.isnan(getattr(metrics, name)(*cases, n_classes=2)[0]), name
        with pytest.warns(UndefinedMetricWarning):
            assert getattr(reference, f"{name}_score")(*cases) == 0


def balanced_accuracy() -> None:
    y, decided = np.array([0, 0, 1]), np.array([0, 2, 1])
    assert np.isnan(metrics.balanced_accuracy(y, decided, n_classes=3)[0])
    with pytest.warns(UserWarning, match="classes not in y_true"):
        assert reference.balanced_accuracy_score(y, decided) == 0.75


def kappa() -> None:
    one = np.zeros(4, int)
    assert np.isnan(metrics.kappa(one, one, n_classes=2)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(reference.cohen_kappa_score(one, one))
    y = np.array([0, 2, 2, 0])
    decided = np.array([0, 2, 0, 0])
    # Grades that nobody has keep their place: with three grades 0 and 2 are two apart, without the middle one.
    found = metrics.quadratic_kappa(y, decided, n_classes=3)[0]
    assert found == pytest.approx(
        reference.cohen_kappa_score(y, decided, weights="quadratic", labels=[0, 1, 2])
    )


def calibration_slope() -> None:
    y, p = _cases()
    odds = np.log(p[:, 1] / p[:, 0])[:, None]
    plain = LogisticRegression(C=np.inf, tol=1e-10).fit(odds, y)
    assert metrics.calibration_slope(y, p)[0] == pytest.approx(plain.coef_[0, 0], abs=1e-4)
    parted = np.where(y == 1, 3.0, -3.0)
    assert np.isnan(metrics.calibration_slope(y, _both(1 / (1 + np.exp(-parted))))[0])
    assert LogisticRegression(C=1e6).fit(parted[:, None], y).coef_[0, 0] > 1


def sets() -> None:
    """With one unit a patient, the bar is the usual order statistic."""
    generator = np.random.default_rng(0)
    for patients, coverage in ((9, 0.9), (25, 0.9), (99, 0.95)):
        p = generator.random(2 * patients)
        y = np.repeat([0, 1], patients)
        found = conformal_sets(_both(p), y, np.arange(2 * patients), classes=("a", "b"), coverage=coverage)
        score, rank = 1 - p[y == 1], math.ceil((patients + 1) * coverage - 1e-9)
        usual = np.quantile(score, rank / patients, method="inverted_cdf")
        assert found.bars[1] == pytest.approx(1 - usual)
        higher = np.quantile(score, rank / patients, method="higher")
        assert (higher > usual) == (rank < patients)
    assert patients_needed(0.9) == 9
    assert conformal_sets(_both(p[:16]), np.repeat([0, 1], 8), np.arange(16), classes=("a", "b")).refused


def intervals() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=60)
    draws = draw_patients(np.arange(60).astype(str), draws=4000, seed=0)
    found = estimate(float(values.mean()), weighted_mean(values, draws.weights()), n=60)
    other = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (found.low, found.high) == (
        pytest.approx(other.low, abs=0.03),
        pytest.approx(other.high, abs=0.03),
    )


def rates_of_0_or_1() -> None:
    two_sided = scipy.stats.binomtest(30, 30).proportion_ci(0.95, method="exact")
    one_sided = scipy.stats.binomtest(30, 30, alternative="greater").proportion_ci(0.95, method="exact")
    assert rule_of_three(1.0, 30)[0] == pytest.approx(one_sided.low)
    assert two_sided.low < one_sided.low


def _equal_width(stated: np.ndarray, happened: np.ndarray, *, bins: int) -> float:
    place = np.minimum((stated * bins).astype(int), bins - 1)
    deviation = np.bincount(place, stated - happened, minlength=bins)
    return float(np.abs(deviation).sum() / len(stated))


ROWS: dict[str, Callable[[], None]] = {
    "ECE of two classes": ece_of_two_classes,
    "ECE of several classes": ece_of_several_classes,
    "AUROC of one class": auroc_of_one_class,
    "AUROC of several classes": auroc_of_several_classes,
    "AUPRC": auprc,
    "log loss": log_loss,
    "Brier score": brier_score,
    "Brier skill score": brier_skill,
    "recall, precision, F1": recall_precision_f1,
    "balanced accuracy": balanced_accuracy,
    "kappa": kappa,
    "calibration slope": calibration_slope,
    "conformal sets": sets,
    "95 % intervals": intervals,
    "rates of 0 or 1": rates_of_0_or_1,
}


@pytest.mark.parametrize("row", ROWS)
def test_a_definition_differs_from_the_other_library_as_the_table_says(row: str) -> None:
    ROWS[row]()


def test_torchmetrics_bins_by_width_takes_the_winner_and_states_0_for_one_class() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    y, p = _cases()
    two = functional.binary_calibration_error(torch.tensor(p[:, 1]), torch.tensor(y), n_bins=10)
    assert float(two) == pytest.approx(_equal_width(p[:, 1], y == 1, bins=10), abs=1e-6)
    y, p = _cases(n_classes=3)
    three = functional.multiclass_calibration_error(
        torch.tensor(p), torch.tensor(y), num_classes=3, n_bins=10
    )
    assert float(three) == pytest.approx(_equal_width(p.max(1), p.argmax(1) == y, bins=10), abs=1e-6)
    with pytest.warns(UserWarning, match="No positive samples"):
        assert float(functional.binary_auroc(torch.tensor([0.1, 0.9]), torch.tensor([0, 0]))) == 0


def test_the_table_has_a_line_for_each_row() -> None:
    page = (PROJECT / "docs" / "protocols.md").read_text()
    table = page.partition("## 13. Definitions")[2]
    assert re.findall(r"^\| ([^|-]+?) \|", table, re.MULTILINE)[1:] == list(ROWS)
