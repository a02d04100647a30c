"""Labels and probabilities of a hit in a few words, for tables and below pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cli.searching.search_store import SearchHit

_SHOWN = 4


def labels_in_words(hit: SearchHit) -> str:
    """Return the labels of a hit: the class alone where task and target have one name, of many targets how many."""
    words: list[str] = []
    for task, targets in hit.labels.items():
        known = {target: label for target, label in targets.items() if label is not None}
        if len(known) > _SHOWN:
            words += [f"{count} x {label}" for label, count in Counter(known.values()).most_common()]
        else:
            alone = len(targets) == 1
            words += [
                label if alone and target == task else f"{target}={label}" for target, label in known.items()
            ]
    return _first(words)


def probability_in_words(hit: SearchHit) -> str:
    """Return what the run says: of each target the likeliest class, and what it is from."""
    if hit.beside is None:
        return ""
    said = []
    for target, of_class in hit.beside.probabilities.items():
        name, probability = max(of_class.items(), key=lambda pair: pair[1])
        alone = len(hit.beside.probabilities) == 1
        said.append(f"{name} {probability:.2f}" if alone else f"{target}={name} {probability:.2f}")
    return f"{_first(said)} ({hit.beside.source})" if said else ""


def _first(words: Sequence[str]) -> str:
    more = f", +{len(words) - _SHOWN}" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
