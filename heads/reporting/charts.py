"""Charts as inline SVG: text stays text, and colours follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from heads.intervals.calibration_error import reliability_points
from heads.scores import Floats

# Stand-ins that no chart uses otherwise; the page's style sheet gives them their colour, light or dark.
_INK, _MUTED = "#010203", "#040506"
_SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
_THEME = {_INK: "currentColor", _MUTED: "var(--muted)"} | {
    colour: f"var(--series-{index})" for index, colour in enumerate(_SERIES, start=1)
}
# A class may be named with a dollar sign, which is no formula here.
_STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "charts",
    "font.family": "sans-serif",
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def roc_points(truth: npt.NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Return false positive rate and recall at each distinct threshold, from none decided to all.

    Straight lines between them hold the area that `heads.statistics.metric_functions.auroc` states: a staircase
    without ties, and a slope where positives and negatives share a score.
    """
    found, false = _cumulated(truth, score)
    return false / max(false[-1], 1), found / max(found[-1], 1)


def precision_recall_points(truth: npt.NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Return recall and precision at each distinct threshold, from recall 0, where the first precision begins.

    A precision holds from the recall before it up to its own (steps): the area is
    `heads.statistics.metric_functions.auprc`.
    """
    found, false = _cumulated(truth, score)
    precision = found[1:] / (found[1:] + false[1:])
    return found / max(found[-1], 1), np.concatenate([precision[:1], precision])


def roc_chart(curves: Mapping[str, tuple[npt.NDArray[np.bool_], Floats]], *, name: str) -> str:
    """Draw ROC curves.

    Parameters
    ----------
    curves
        Legend -> ((n,) bool truth, (n,) float score).
    name
        Prefix of the ids inside, unique on the page.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _square("1 - specificity", "sensitivity (recall)")
        axes.plot([0, 1], [0, 1], color=_MUTED, linestyle=":", linewidth=1)
        for colour, (legend, (truth, score)) in zip(_cycle(len(curves)), curves.items(), strict=True):
            axes.plot(*roc_points(truth, score), color=colour, label=legend)
        axes.legend(loc="lower right")
        return _svg(figure, name, "ROC curve")


def precision_recall_chart(curves: Mapping[str, tuple[npt.NDArray[np.bool_], Floats]], *, name: str) -> str:
    """Draw precision-recall curves, each with its prevalence dotted; arguments as `roc_chart`."""
    with mpl.rc_context(_STYLE):
        figure, axes = _square("sensitivity (recall)", "precision")
        for colour, (legend, (truth, score)) in zip(_cycle(len(curves)), curves.items(), strict=True):
            axes.step(*precision_recall_points(truth, score), color=colour, label=legend, where="pre")
            axes.axhline(float(truth.mean()), color=colour, linestyle=":", linewidth=1)
        axes.legend(loc="lower left")
        return _svg(figure, name, "precision-recall curve")


def reliability_chart(
    curves: Mapping[str, Floats], truth: npt.NDArray[np.bool_], *, bins: int, name: str
) -> str:
    """Draw observed against stated probability in bins of equal mass, with the count of each bin.

    Parameters
    ----------
    curves
        Legend -> (n,) probability (before and after calibration).
    truth
        (n,) bool.
    bins
        Number of bins.
    name
        As `roc_chart`.
    """
    points = {
        legend: reliability_points(probability, truth, bins=bins) for legend, probability in curves.items()
    }
    return calibration_chart(points, name=name)


def calibration_chart(
    curves: Mapping[str, Sequence[tuple[float, float, int]]], *, name: str, title: str = "reliability diagram"
) -> str:
    """Draw observed against stated probability, with the counts of the last curve.

    Parameters
    ----------
    curves
        Legend -> points of `heads.intervals.calibration_error.reliability_points`.
    name
        As `roc_chart`.
    title
        What it shows.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _square("stated probability", "observed share")
        axes.plot([0, 1], [0, 1], color=_MUTED, linestyle=":", linewidth=1)
        for colour, (legend, points) in zip(_cycle(len(curves)), curves.items(), strict=True):
            stated, observed = [point[0] for point in points], [point[1] for point in points]
            axes.plot(stated, observed, color=colour, marker="o", markersize=4, label=legend)
        # Counts of the last curve, the calibrated one: bins have equal mass but for ties.
        for x, y, count in points:
            axes.annotate(str(count), (x, y), (0, 6), textcoords="offset points", ha="center", fontsize=7)
        axes.legend(loc="upper left")
        return _svg(figure, name, title)


def forest_chart(
    rows: Sequence[tuple[str, float, float, float]],
    *,
    label: str,
    name: str,
    title: str = "",
    line: float | None = None,
) -> str:
    """Draw one interval per row.

    Parameters
    ----------
    rows
        (legend, value, low, high), from the top. NaN for no interval.
    label
        What is drawn.
    name
        As `roc_chart`.
    title
        What the chart is, for those who cannot see it; by subgroup by default.
    line
        Where the dotted line is; at the first row, which is then the whole, by default.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 0.7 + 0.28 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for row, (_, value, low, high) in enumerate(rows):
            axes.plot([low, high], [-row, -row], color=_SERIES[0], linewidth=1.5)
            # Hollow without an interval: the point is not exact, its doubt is unknown.
            inside = "none" if np.isnan(low) else _SERIES[0]
            axes.plot([value], [-row], color=_SERIES[0], marker="s", markersize=5, markerfacecolor=inside)
        axes.axvline(rows[0][1] if line is None else line, color=_MUTED, linestyle=":", linewidth=1)
        axes.set_yticks([-row for row in range(len(rows))], [legend for legend, *_ in rows])
        axes.set_xlabel(label)
        return _svg(figure, name, title or f"{label} by subgroup")


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float, float, float]]],
    *,
    labels: tuple[str, str],
    title: str,
    name: str,
    counts: bool = False,
) -> str:
    """Draw lines with their intervals as bands.

    Parameters
    ----------
    lines
        Legend -> (x, value, low, high) in order of x; a point without interval has NaN there.
    labels
        Of the axes.
    title
        What the chart is, for those who cannot see it.
    name
        As `roc_chart`.
    counts
        Whether x counts something that doubles, with a mark and the number at each point.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 3.9), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel=labels[0], ylabel=labels[1])
        for colour, (legend, points) in zip(_cycle(len(lines)), lines.items(), strict=True):
            x, value, low, high = np.array(points, np.float64).T
            axes.plot(x, value, color=colour, label=legend, marker="o" if counts else "", markersize=4)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        if counts:
            axes.set_xscale("log", base=2)
            axes.set_xticks(x, [f"{count:,.0f}" for count in x])
            axes.minorticks_off()
        if len(lines) > 1:
            axes.legend()
        return _svg(figure, name, title)


def _square(x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.2, 3.9), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x_label, ylabel=y_label, aspect="equal")
    return figure, axes


def _cycle(n: int) -> list[str]:
    return [_SERIES[index % len(_SERIES)] for index in range(n)]


def _cumulated(truth: npt.NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Return found positives and false positives at each falling threshold, from none to all."""
    levels, inverse = np.unique(-score, return_inverse=True)
    found = np.cumsum(np.bincount(inverse, truth, len(levels)))
    false = np.cumsum(np.bincount(inverse, ~truth, len(levels)))
    return np.concatenate([[0.0], found]), np.concatenate([[0.0], false])


def _svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as an element for a page: themed colours, own ids, no date, no fixed size."""
    buffer = io.BytesIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Several charts share the page, and an id may occur once.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, themed in _THEME.items():
        text = text.replace(colour, themed)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
