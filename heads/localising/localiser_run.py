"""A localiser's run folder: everything needed to use it, and to doubt it. No pickle.

```
localiser.json         format version, identity, recipe, prior, confidence, errors out of fold, digests of all
localiser.safetensors  the networks: <kind>.<fold>.<weight>
second.safetensors     those of a second look, if there is one: <kind of crop>.<fold>.<weight>
levels.parquet         the points of all studies, those learned from out of fold (`embedstore.lumbar.level_points`)
timing.json            when it was made and how long it took; decides nothing, so it has no digest
```
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from embedstore.errors import Advice, DataError
from embedstore.files import (
    StrPath,
    canonical_json,
    content_sha256,
    make_folder_durable,
    parquet_bytes,
    sealed,
    sha256_bytes,
    write_durable,
)
from embedstore.identity import identity_from_json
from embedstore.lumbar.crop_rule import rule_from_json
from embedstore.lumbar.level_points import LEVELS_FILE, LevelPoints, points_from_rows
from heads.localising.confidence import Confidence
from heads.localising.cross_fit import CrossFit
from heads.localising.localiser import Localiser
from heads.localising.network import MapNetwork, network_from_arrays
from heads.localising.recipe import Recipe
from heads.localising.second_look import SecondLook, View
from heads.localising.spine_prior import SpinePrior

LOCALISER_FILE = "localiser.json"
NETWORKS_FILE = "localiser.safetensors"
SECOND_FILE = "second.safetensors"
TIMING_FILE = "timing.json"
FILES = (NETWORKS_FILE, SECOND_FILE, LEVELS_FILE, TIMING_FILE)
# 2: points are made of tokens that agree with the path's own; the weights of before find other ones.
# 3: the same with a second look, which readers of 2 would leave out.
FORMAT_VERSION = 2
FORMAT_OF_TWO_LOOKS = 3
NOTICE = "research software, not a medical device"


def save_localiser(
    folder: StrPath, fit: CrossFit, *, report: Mapping[str, Any], seconds: float
) -> tuple[Localiser, LevelPoints]:
    """Write a localiser as a run, in place of one already there.

    ``localiser.json`` of a run already there goes first, and the new one comes last: a folder without it is no run.

    Parameters
    ----------
    report
        What else the document says: settings, points, errors; plain JSON values.
    seconds
        How long it took.

    Returns
    -------
    The localiser as `read_localiser` reads it, and the levels of all studies.
    """
    folder = Path(folder)
    make_folder_durable(folder)
    for name in (LOCALISER_FILE, SECOND_FILE):
        (folder / name).unlink(missing_ok=True)
    second = fit.localiser.second
    networks = _networks_to_bytes(fit.localiser.networks)
    decides = {
        "format_version": FORMAT_VERSION if second is None else FORMAT_OF_TWO_LOOKS,
        "identity": fit.localiser.identity.to_json(),
        "recipe": fit.localiser.recipe.to_json(),
        "prior": fit.localiser.prior.to_json(),
        "confidence": fit.localiser.confidence.to_json(),
        "limits": {str(discs): _finite(limit) for discs, limit in fit.localiser.limits.items()},
        "networks_sha256": sha256_bytes(networks),
    }
    files = {NETWORKS_FILE: networks}
    if second is not None:
        files[SECOND_FILE] = _networks_to_bytes({kind: view.networks for kind, view in second.views.items()})
        decides["second_look"] = _second_to_json(second, files[SECOND_FILE])
    digest = sha256_bytes(canonical_json({**decides, "settings": report.get("settings")}))
    levels = points_from_rows(fit.rows, origin="localised", digest=digest, left_out={})
    files[LEVELS_FILE] = parquet_bytes(levels.to_table())
    for name, payload in files.items():
        write_durable(folder / name, payload, label=f"localiser-{name.split('.')[0]}")
    made = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(seconds, 3)}
    write_durable(folder / TIMING_FILE, _as_text(made), label="localiser-timing")
    stated = {name: sha256_bytes(payload) for name, payload in files.items()}
    document = {**decides, **report, "digest": digest, "files": stated, "notice": NOTICE}
    document = sealed(json.loads(canonical_json(document)))
    write_durable(folder / LOCALISER_FILE, _as_text(document), label="localiser")
    return replace(fit.localiser, digest=digest, document=document, folder=folder), levels


def read_localiser(folder: StrPath) -> Localiser:
    """Read a localiser and check that nothing was changed.

    Raises
    ------
    DataError
        If the folder is no localiser's run, of another format version, or a file is missing or was edited.

    Examples
    --------
    The run of a head is none:

    >>> heads.read_localiser("runs/abnormal-logistic")
    Traceback (most recent call last):
    ...
    embedstore.errors.DataError: runs/abnormal-logistic is no localiser's run: it has no localiser.json...
    """
    folder = Path(folder)
    document = _read_document(folder)
    payloads = _read_files(folder, document)
    try:
        return Localiser(
            identity=identity_from_json(document["identity"], source=str(folder / LOCALISER_FILE)),
            recipe=Recipe.from_json(document["recipe"]),
            networks=_networks_from_bytes(payloads[NETWORKS_FILE]),
            prior=SpinePrior.from_json(document["prior"]),
            confidence=Confidence.from_json(document["confidence"]),
            limits={
                int(discs): float("inf") if limit is None else float(limit)
                for discs, limit in document["limits"].items()
            },
            second=_second_from_json(document, payloads, source=str(folder / LOCALISER_FILE)),
            digest=str(document["digest"]),
            document=document,
            folder=folder,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder}: the localiser cannot be read: {error}", advice=Advice.LOCALISE) from error


def digest_of_localiser(folder: StrPath) -> str:
    """Return the digest that a localiser's run states, not checked as `read_localiser` does; ``""`` without one."""
    try:
        return str(json.loads((Path(folder) / LOCALISER_FILE).read_bytes())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read_levels(folder: StrPath) -> LevelPoints:
    """Read the levels of a localiser's run; raises DataError as `read_localiser`."""
    folder = Path(folder)
    _read_files(folder, _read_document(folder))
    return LevelPoints.load(folder / LEVELS_FILE)


def _read_document(folder: Path) -> Mapping[str, Any]:
    path = folder / LOCALISER_FILE
    try:
        document: Mapping[str, Any] = json.loads(path.read_bytes())
        intact = document["sha256"] == content_sha256(document)
        version = document["format_version"]
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is no localiser's run: it has no {LOCALISER_FILE}", advice=Advice.LOCALISE
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the document of a localiser ({error})") from error
    if version not in (FORMAT_VERSION, FORMAT_OF_TWO_LOOKS):
        raise DataError(
            f"{path}: format version must be {FORMAT_VERSION} or {FORMAT_OF_TWO_LOOKS}; found {version!r}",
            advice=Advice.LOCALISE,
        )
    if not intact:
        raise DataError(f"{path} was changed after it was written", advice=Advice.LOCALISE)
    return document


def _read_files(folder: Path, document: Mapping[str, Any]) -> dict[str, bytes]:
    found = {}
    for name, digest in document["files"].items():
        try:
            found[name] = (folder / name).read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{folder / name} is missing", advice=Advice.LOCALISE) from error
        if sha256_bytes(found[name]) != digest:
            raise DataError(f"{folder / name} was changed after it was written", advice=Advice.LOCALISE)
    return found


def _second_to_json(second: SecondLook, networks: bytes) -> dict[str, Any]:
    return {
        "identity": second.identity.to_json(),
        "recipe": second.recipe.to_json(),
        "views": {
            kind: {"spread_mm": view.spread_mm.tolist(), "share": view.share}
            for kind, view in second.views.items()
        },
        "networks_sha256": sha256_bytes(networks),
    }


def _second_from_json(
    document: Mapping[str, Any], payloads: Mapping[str, bytes], *, source: str
) -> SecondLook | None:
    said = document.get("second_look")
    if said is None:
        return None
    identity = identity_from_json(said["identity"], source=source)
    networks = _networks_from_bytes(payloads[SECOND_FILE])
    return SecondLook(
        identity=identity,
        rule=rule_from_json(identity.crop or {}, source=source),
        recipe=Recipe.from_json(said["recipe"]),
        views={
            kind: View(networks[kind], np.array(view["spread_mm"], float), float(view["share"]))
            for kind, view in said["views"].items()
        },
    )


def _networks_to_bytes(networks: Mapping[str, Any]) -> bytes:
    arrays = {
        f"{kind}.{fold}.{name}": array
        for kind, of_kind in networks.items()
        for fold, network in enumerate(of_kind)
        for name, array in network.arrays().items()
    }
    return bytes(safetensors.numpy.save(arrays))


def _networks_from_bytes(payload: bytes) -> dict[str, list[MapNetwork]]:
    arrays: dict[str, dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for full_name, array in safetensors.numpy.load(payload).items():
        kind, fold, name = full_name.split(".", 2)
        arrays[kind][int(fold)][name] = array
    return {
        kind: [network_from_arrays(of_kind[fold]) for fold in sorted(of_kind)]
        for kind, of_kind in arrays.items()
    }


def _as_text(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _finite(limit: float) -> float | None:
    return None if limit == float("inf") else limit
