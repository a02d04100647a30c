"""A question of the page -> the nearest cases, as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.page.answering import Desk
from cli.page.served_store import ServedStore, Shelf
from cli.searching.search_options import IMAGE, STUDY, SearchOptions, SearchQuery
from cli.searching.search_store import SearchHit
from cli.studying.answer_words import target_in_words
from embedstore.errors import UsageError
from embedstore.queries.conditions import condition_text
from heads.runs.run import Run

_MOST = 100
_MOST_ROWS = 64
_LONGEST_TEXT = 500
_SHOWN_TARGETS = 2


def find_cases(shelf: Shelf, desk: Desk, question: Mapping[str, Any]) -> dict[str, Any]:
    """Search as the page asks.

    Parameters
    ----------
    shelf, desk
        What is searched, and what was sent.
    question
        ``store``; one of ``rows`` (of the store), ``sent`` (an id) and ``text``; ``k``, ``where`` (conditions),
        ``equals`` (column -> value), ``group`` (``study`` or ``image``), ``same_patient``, ``run``.

    Raises
    ------
    UsageError, DataError
        As `cli.searching.search_store.StoreSearch.search`.
    """
    served = shelf.served(question.get("store"))
    run = shelf.run(question["run"]) if question.get("run") else None
    query = _query(served, desk, question)
    where = [_text(condition) for condition in _list(question, "where")]
    equals = question.get("equals", {})
    if not isinstance(equals, dict):
        raise UsageError("equals must be an object")
    where += [condition_text(column, _text(value)) for column, value in equals.items() if value != ""]
    options = SearchOptions(
        k=_count(question.get("k", 12)),
        where=where,
        group=STUDY if question.get("group", STUDY) == STUDY else IMAGE,
        same_patient=question.get("same_patient") is True,
        probe=run,
    )
    with served.turn:
        found = served.search.search(query, options)
    return {
        "cases": [_case(served, hit, run) for hit in found.hits],
        "compared": found.compared,
        "why_none": found.why_none,
        "notices": list(found.notices),
        "query": [served.facts(row) for row in _rows(served, question)],
    }


def _query(served: ServedStore, desk: Desk, question: Mapping[str, Any]) -> SearchQuery:
    if isinstance(question.get("text"), str) and question["text"].strip():
        return SearchQuery(text=question["text"].strip()[:_LONGEST_TEXT])
    if question.get("sent"):
        sent = desk.sent(question["sent"])
        if sent.store != question.get("store"):
            raise UsageError("what was sent was embedded for another store; send it again")
        return sent.query
    return SearchQuery(ids=[str(served.store.image_ids[row]) for row in _rows(served, question)])


def _rows(served: ServedStore, question: Mapping[str, Any]) -> list[int]:
    return [served.require_row(row) for row in _list(question, "rows")[:_MOST_ROWS]]


def _case(served: ServedStore, hit: SearchHit, run: Run | None) -> dict[str, Any]:
    said: dict[str, Any] | None = None
    if hit.beside is not None and run is not None:
        said = {
            "source": hit.beside.source,
            "of": len(hit.beside.probabilities),
            "targets": [
                {"target": target_in_words(target), **_leading(shares, run.positive)}
                for target, shares in _shown(hit.beside.probabilities, run.positive)
            ],
        }
    return {
        **served.facts(hit.row, hit.record),
        "cosine": round(hit.cosine, 4),
        "images": hit.images,
        "run": said,
    }


def _shown(
    probabilities: Mapping[str, Mapping[str, float]], positive: str | None
) -> list[tuple[str, Mapping[str, float]]]:
    """Return the targets to show on a card: all of a few, of many the one that is likeliest to be acted on."""
    found = list(probabilities.items())
    if len(found) <= _SHOWN_TARGETS:
        return found
    return [max(found, key=lambda entry: entry[1].get(positive or "", 0.0))]


def _leading(shares: Mapping[str, float], positive: str | None) -> dict[str, Any]:
    """Return the class to name of a target's probabilities, and its own."""
    named = (
        positive
        if positive is not None and positive in shares
        else max(shares, key=lambda label: shares[label])
    )
    return {"class": named, "share": round(shares[named], 4)}


def _list(question: Mapping[str, Any], name: str) -> list[Any]:
    given = question.get(name) or []
    if not isinstance(given, list):
        raise UsageError(f"{name} must be a list")
    return given


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise UsageError("a condition must be a text")
    return value


def _count(k: Any) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= _MOST:
        raise UsageError(f"k must be a whole number from 1 to {_MOST}")
    return k
