"""Which vectors of patients a run folder holds, so that whoever hands it on knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OUTLIERS_FILE = "outliers.safetensors"


def left_out_by_choice(document: Mapping[str, Any]) -> set[str]:
    """Return the files that a run may lack, by its ``run.json``: that of the bank, where none was to be kept."""
    return {OUTLIERS_FILE} if document.get("outliers", {}) is None else set()


def vectors_in_words(document: Mapping[str, Any]) -> str:
    """Return a line on the vectors of patients in a run, from its ``run.json``; runs from before it said so as well."""
    outliers = document.get("outliers") or {"bank_images": 0}
    held = document.get("patient_vectors") or {"bank": outliers["bank_images"], "head": False}
    files = []
    if held["bank"]:
        files.append(f"{OUTLIERS_FILE} {held['bank']:,}")
    if held["head"]:
        files.append("head.safetensors all that it learned from")
    if not files:
        return "holds no vector of a patient; it cannot tell units that are unlike those it learned from"
    sources = document.get("sources", ())
    if sources and all(source["phantom"] for source in sources):
        return f"holds vectors of training images ({', '.join(files)}), all of them phantoms"
    return (
        f"holds vectors of patients' images ({', '.join(files)}), health data like the images: hand it on only to who "
        "may have those"
    )
