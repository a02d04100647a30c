"""Heads and calibrators as files and JSON values, and back: those of one head, or of all parts of a blend."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embedstore.errors import PluginError
from embedstore.files import canonical_json
from heads.base import FittedHead
from heads.ensemble import EnsembleHead
from heads.inputs.binned import Bins, bins_from_saved
from heads.inputs.metadata import metadata_from_json
from heads.protocol.predictor import BlendedPredictor, Predictor
from heads.registry import head_class, head_package
from heads.runs.shared_arrays import Arrays, arrays_from_bytes, arrays_to_bytes
from heads.statistics.calibration import Calibrator, calibrator_from_json

HEAD_FILE = "head.safetensors"
CALIBRATOR_FILE = "calibrator.json"


def predictor_files(predictor: Predictor | BlendedPredictor) -> dict[str, bytes]:
    """Return the files of a predictor: name -> content."""
    parts = _parts(predictor)
    calibrators: dict[str, Any] = {"calibrators": _to_json(predictor.calibrators)}
    if isinstance(predictor, BlendedPredictor):
        calibrators["parts"] = [_to_json(part.calibrators) for part in parts]
    return {
        # Behind the heads stand the axes of binned pooling, of each part that has it.
        HEAD_FILE: arrays_to_bytes(
            [head.to_arrays() for part in parts for head in part.heads]
            + [part.bins.to_arrays() for part in parts if part.bins]
        ),
        CALIBRATOR_FILE: canonical_json(calibrators),
    }


def head_values(predictor: Predictor | BlendedPredictor, index: int) -> dict[str, Any]:
    """Return what of a target's head is kept in ``run.json``; of a blend, what its parts keep is theirs (`parts`)."""
    if isinstance(predictor, BlendedPredictor):
        said = [part.heads[index].converged_ for part in predictor.parts.values()]
        return {
            "params": {},
            "members": [],
            "training_weights": [],
            "converged": False if False in said else None if None in said else True,
        }
    head = predictor.heads[index]
    return {
        "params": head.get_params(),
        "members": head.own_params() if isinstance(head, EnsembleHead) else [],
        "training_weights": list(predictor.training_weights[index]),
        "converged": head.converged_,
    }


def holds_vectors(predictor: Predictor | BlendedPredictor) -> bool:
    """Return whether a head is made of the vectors that it learned from."""
    return any(part.heads[0].needs.holds_vectors for part in _parts(predictor))


def load_predictor(
    document: Mapping[str, Any], payloads: Mapping[str, bytes], *, folder: Path
) -> Predictor | BlendedPredictor:
    """Build the predictor of a run again.

    Parameters
    ----------
    document
        The content of ``run.json``.
    payloads
        File -> content, as `predictor_files`.
    folder
        Of the run, for messages.

    Raises
    ------
    KeyError, IndexError, TypeError, SafetensorError, DataError
        If something is missing, or is not what it should be.
    PluginError
        If a head is of a package that is not installed here; with the packages that the run was made with.
    """
    _require_heads(document, folder)
    source = str(folder / CALIBRATOR_FILE)
    said = json.loads(payloads[CALIBRATOR_FILE])
    parts = document.get("parts", ())
    n_targets = len(document["heads"])
    n_heads = n_targets * max(len(parts), 1)
    saved = [part["inputs"].get("bins") for part in parts or (document,)]
    arrays = arrays_from_bytes(payloads[HEAD_FILE], n_heads + sum(entry is not None for entry in saved))
    of_bins = iter(arrays[n_heads:])
    bins = [None if entry is None else bins_from_saved(entry, next(of_bins)) for entry in saved]
    calibrators = _from_json(said["calibrators"], source)
    if not parts:
        settings = document["settings"]
        return _predictor(
            settings["head"],
            settings["pooling"],
            document["inputs"]["blocks"],
            document["heads"],
            arrays[:n_heads],
            calibrators,
            bins[0],
        )
    predictors = {
        part["head"]: _predictor(
            part["head"],
            part["inputs"]["chosen"]["pooling"],
            part["inputs"]["blocks"],
            part["heads"],
            arrays[number * n_targets : (number + 1) * n_targets],
            _from_json(said["parts"][number], source),
            bins[number],
        )
        for number, part in enumerate(parts)
    }
    weights = tuple(tuple(entry["point"][name] for name in predictors) for entry in document["heads"])
    return BlendedPredictor(parts=predictors, weights=weights, calibrators=calibrators)


def _require_heads(document: Mapping[str, Any], folder: Path) -> None:
    heads = [part["head"] for part in document.get("parts", ())] or [document["settings"]["head"]]
    absent = [name for name in heads if head_package(name) is None]
    if not absent:
        return
    packages = [
        f"{name} {found}"
        for name, found in document.get("versions", {}).items()
        if name != "python" and not _is_installed(name)
    ]
    made = f" It was made with {', '.join(packages)}, which is not there: install it" if packages else ""
    raise PluginError(f"{folder}: the run needs head {absent[0]!r}, which no installed package offers.{made}")


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _predictor(
    name: str,
    pooling: str,
    blocks: Mapping[str, Any] | None,
    entries: Sequence[Mapping[str, Any]],
    arrays: Sequence[Arrays],
    calibrators: Sequence[Calibrator],
    bins: Bins | None,
) -> Predictor:
    """Build the heads of all targets again; an entry without members, as all of earlier formats, is a single one."""
    kind = head_class(name)
    heads: list[FittedHead] = [
        EnsembleHead.from_arrays(kind, of_head, entry["params"], members)
        if (members := entry.get("members"))
        else kind.from_arrays(of_head, entry["params"])
        for of_head, entry in zip(arrays, entries, strict=True)
    ]
    return Predictor(
        heads=heads,
        calibrators=calibrators,
        pooling=pooling,
        training_weights=tuple(tuple(entry["training_weights"]) for entry in entries),
        blocks=metadata_from_json(blocks) if blocks else None,
        bins=bins,
    )


def _parts(predictor: Predictor | BlendedPredictor) -> list[Predictor]:
    return [predictor] if isinstance(predictor, Predictor) else list(predictor.parts.values())


def _to_json(calibrators: Sequence[Calibrator]) -> list[dict[str, Any]]:
    return [calibrator.to_json() for calibrator in calibrators]


def _from_json(entries: Sequence[Mapping[str, Any]], source: str) -> list[Calibrator]:
    return [calibrator_from_json(entry, source=source) for entry in entries]
