"""Heads on cached embeddings: fitting, selection, calibration, statistics, runs, reports.

The names below are the public ones; modules underneath may move in any release.

>>> import heads
>>> heads.head_names()
['attention', 'knn', 'logistic', 'mlp', 'xgboost', 'zeroshot']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedstore.lazy_names import lazy_names

if TYPE_CHECKING:
    from heads.base import FamilyDefaults, Head, HeadDefaults, HeadFamily, HeadNeeds, OutOfFold, Training
    from heads.blending.blend import blend
    from heads.comparing.comparison_table import ComparisonTable, comparison_table
    from heads.estimators.attention import AttentionHead
    from heads.estimators.boosted import BoostedHead
    from heads.estimators.logistic import LogisticHead
    from heads.estimators.mlp import MlpHead
    from heads.estimators.neighbors import NeighborsHead
    from heads.estimators.presets import preset_family, preset_names
    from heads.estimators.zeroshot import ZeroShotHead, zeroshot_head
    from heads.localising.localiser import Localiser
    from heads.localising.localiser_run import read_localiser
    from heads.lumbar.rsna_score import for_rsna_score, from_rsna_score, rsna_score
    from heads.lumbar.submission import Submission, read_submission, write_submission
    from heads.protocol.learning_curve import LearningCurve, learning_curve
    from heads.protocol.options import ProbeOptions
    from heads.protocol.probe import probe
    from heads.protocol.probe_result import ProbeResult
    from heads.registry import head_class, head_names
    from heads.reporting.comparison_page import save_comparison
    from heads.reporting.page import save_report
    from heads.runs.answers import predict_units
    from heads.runs.comparison import Comparison, compare
    from heads.runs.run import Run
    from heads.runs.run_files import load_run, save_run
    from heads.statistics.bootstrap import Estimate
    from heads.statistics.measure import measure, metric_names

__all__ = [
    "AttentionHead",
    "BoostedHead",
    "Comparison",
    "ComparisonTable",
    "Estimate",
    "FamilyDefaults",
    "Head",
    "HeadDefaults",
    "HeadFamily",
    "HeadNeeds",
    "LearningCurve",
    "Localiser",
    "LogisticHead",
    "MlpHead",
    "NeighborsHead",
    "OutOfFold",
    "ProbeOptions",
    "ProbeResult",
    "Run",
    "Submission",
    "Training",
    "ZeroShotHead",
    "blend",
    "compare",
    "comparison_table",
    "for_rsna_score",
    "from_rsna_score",
    "head_class",
    "head_names",
    "learning_curve",
    "load_run",
    "measure",
    "metric_names",
    "predict_units",
    "preset_family",
    "preset_names",
    "probe",
    "read_localiser",
    "read_submission",
    "rsna_score",
    "save_comparison",
    "save_report",
    "save_run",
    "write_submission",
    "zeroshot_head",
]

_NAMES_OF_MODULE = {
    "heads.base": [
        "FamilyDefaults",
        "Head",
        "HeadDefaults",
        "HeadFamily",
        "HeadNeeds",
        "OutOfFold",
        "Training",
    ],
    "heads.estimators.attention": ["AttentionHead"],
    "heads.comparing.comparison_table": ["ComparisonTable", "comparison_table"],
    "heads.blending.blend": ["blend"],
    "heads.estimators.boosted": ["BoostedHead"],
    "heads.estimators.logistic": ["LogisticHead"],
    "heads.estimators.mlp": ["MlpHead"],
    "heads.estimators.neighbors": ["NeighborsHead"],
    "heads.estimators.presets": ["preset_family", "preset_names"],
    "heads.estimators.zeroshot": ["ZeroShotHead", "zeroshot_head"],
    "heads.localising.localiser": ["Localiser"],
    "heads.localising.localiser_run": ["read_localiser"],
    "heads.lumbar.rsna_score": ["for_rsna_score", "from_rsna_score", "rsna_score"],
    "heads.lumbar.submission": ["Submission", "read_submission", "write_submission"],
    "heads.protocol.learning_curve": ["LearningCurve", "learning_curve"],
    "heads.protocol.options": ["ProbeOptions"],
    "heads.protocol.probe": ["probe"],
    "heads.protocol.probe_result": ["ProbeResult"],
    "heads.registry": ["head_class", "head_names"],
    "heads.reporting.comparison_page": ["save_comparison"],
    "heads.reporting.page": ["save_report"],
    "heads.runs.answers": ["predict_units"],
    "heads.runs.comparison": ["Comparison", "compare"],
    "heads.runs.run": ["Run"],
    "heads.runs.run_files": ["load_run", "save_run"],
    "heads.statistics.bootstrap": ["Estimate"],
    "heads.statistics.measure": ["measure", "metric_names"],
}

# Not for type checkers, to whom an unknown name would be anything.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _NAMES_OF_MODULE)
