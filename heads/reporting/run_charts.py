"""The curves of a run as charts: net benefit, abstention and learning, from what ``run.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heads.reporting.charts import line_chart
from heads.statistics.metrics import metric_label

Point = tuple[float, float, float, float]
# A curve falls off a cliff near certainty; below this the eye sees nothing else.
_LOWEST_BENEFIT = -0.05


def decision_chart(document: Mapping[str, Any], target: str, name: str) -> str | None:
    """Draw net benefit against threshold, beside acting on all or on none; None without labelled units."""
    entries = document["decision_curve"].get(target)
    if not entries:
        return None
    lines: dict[str, list[Point]] = {"the head": [], "act on all": [], "act on none": []}
    for entry in entries:
        threshold = entry["threshold"]
        lines["the head"].append(_point(threshold, entry["net_benefit"]))
        if entry["treat_all"]["value"] >= _LOWEST_BENEFIT:
            lines["act on all"].append(_point(threshold, entry["treat_all"]))
        lines["act on none"].append((threshold, 0.0, 0.0, 0.0))
    drawn = {legend: points for legend, points in lines.items() if points}
    return line_chart(
        drawn, labels=("threshold probability", "net benefit"), title="decision curve", name=name
    )


def abstention_chart(document: Mapping[str, Any], target: str, name: str) -> str | None:
    """Draw accuracy against the share that is answered; None where it is one share only.

    Equal confidences cannot be parted: a head that is as sure of every unit answers all of them or none.
    """
    entries = document["abstention"].get(target, ())
    points = sorted({entry["share"]: _point(entry["share"], entry["accuracy"]) for entry in entries}.items())
    if len(points) < 2:
        return None
    return line_chart(
        {"accuracy": [point for _, point in points]},
        labels=("share answered, surest first", "accuracy"),
        title="abstention curve",
        name=name,
    )


def learning_chart(document: Mapping[str, Any], metric: str, name: str) -> str | None:
    """Draw a metric against patients learned from; None where no learning curve was asked for."""
    points = [
        _point(point["patients"], point["metrics"][metric])
        for point in document.get("learning_curve", {}).get("points", ())
        if point["metrics"].get(metric, {}).get("value") is not None
    ]
    if not points:
        return None
    return line_chart(
        {metric_label(metric): points},
        labels=("patients learned from", metric_label(metric)),
        title="learning curve",
        name=name,
        counts=True,
    )


def interval_of(entry: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return value and interval of an estimate in ``run.json``, NaN for what is not there."""
    value, low, high = (
        float("nan") if entry[key] is None else entry[key] for key in ("value", "low", "high")
    )
    return value, low, high


def _point(x: float, entry: Mapping[str, Any]) -> Point:
    return x, *interval_of(entry)
