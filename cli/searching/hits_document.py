"""What was found as plain JSON values."""

from __future__ import annotations

from typing import Any

from cli.searching.search_store import SearchHit, SearchResult


def hits_document(found: SearchResult) -> dict[str, Any]:
    """Return queries and hits as plain JSON values."""
    return {
        "queries": [
            {"name": query.name, "image_id": query.image_id or None, "patient_id": query.patient_id or None}
            for query in found.queries
        ],
        "group": found.group,
        "compared": found.compared,
        "hits": [_hit_document(hit) for hit in found.hits],
    }


def _hit_document(hit: SearchHit) -> dict[str, Any]:
    beside = hit.beside
    said = {} if beside is None else {"probabilities": beside.probabilities, "said": beside.source}
    return {
        "unit_id": hit.unit_id,
        "image_id": hit.image_id,
        "study_id": hit.study_id,
        "patient_id": hit.patient_id,
        "cosine": hit.cosine,
        "query": hit.query,
        "row": hit.row,
        "images": hit.images,
        "labels": hit.labels,
        **said,
        "record": dict(hit.record),
    }
