"""Which vectors of patients a run folder holds, so that whoever hands it on knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def vectors_in_words(document: Mapping[str, Any]) -> str:
    """Return a line on the vectors of patients in a run, from its ``run.json``; runs from before it said so as well."""
    outliers = document.get("outliers") or {"bank_images": 0}
    held = document.get("patient_vectors") or {"bank": outliers["bank_images"], "head": False}
    files = []
    if held["bank"]:
        files.append(f"outliers.safetensors {held['bank']:,}")
    if held["head"]:
        files.append("head.safetensors all that it learned from")
    if not files:
        return "holds no vector of a patient; it cannot tell units that are unlike those it learned from"
    return (
        f"holds vectors of patients' images ({', '.join(files)}), health data like the images: hand it on only to who "
        "may have those"
    )
