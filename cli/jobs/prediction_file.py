"""Answers as a file: JSON lines as they are printed, or Parquet with one row per unit and target."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedstore.errors import UsageError
from embedstore.files import StrPath

_ENDINGS = (".jsonl", ".parquet")


def require_prediction_file(path: StrPath) -> None:
    """Refuse a name that says no known format; raises UsageError."""
    if Path(path).suffix not in _ENDINGS:
        raise UsageError(f"--out: the suffix must be {' or '.join(_ENDINGS)}; found {Path(path).suffix!r}")


def write_predictions(path: StrPath, answers: Sequence[Mapping[str, Any]]) -> None:
    """Write the answers of `cli.jobs.predict_inputs.predict_inputs`; raises as `require_prediction_file`."""
    require_prediction_file(path)
    if Path(path).suffix == ".jsonl":
        lines = (json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
        Path(path).write_text("".join(lines))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(_flat(answers))), Path(path))


def _flat(answers: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one row per unit and target, with a column per class."""
    for entry in answers:
        for target, answer in entry["targets"].items():
            yield {
                "unit_id": entry["unit_id"],
                "target": target,
                **{
                    f"prob_{name}": (answer["probabilities"] or {}).get(name)
                    for name in answer["prevalence"]["assumed"]
                },
                "decision": answer["decision"],
                "threshold": answer.get("threshold"),
                "conformal_set": answer["conformal_set"],
                **{f"prevalence_{name}": share for name, share in answer["prevalence"]["assumed"].items()},
                "prevalence_source": answer["prevalence"]["source"],
                **{f"ood_p_{method}": p for method, p in (entry["ood_p_value"] or {}).items()},
                "images": entry["images"],
                "learned_from": entry["learned_from"],
                "run_id": entry["run_id"],
            }
