"""The head of a probe's run as the head to go on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from embedstore.encoders.tower import TowerEncoder
from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.view import View
from finetune.towers.tunable import ClassificationHead
from heads.estimators.logistic import LogisticHead
from heads.estimators.mlp import MlpHead
from heads.protocol.predictor import Predictor
from heads.runs.run import Run
from heads.runs.run_files import load_run

_FITTING = ("weights_sha256", "pooling", "dim")


def head_of_run(
    folder: StrPath, base: TowerEncoder, view: View, *, dropout: float = 0.0
) -> ClassificationHead:
    """Return the head of a run with its weights and its standardisation.

    Parameters
    ----------
    folder
        The run: logistic, or an mlp of one network, refitted on all, for one target.
    base
        The encoder that is fine-tuned; it must have made the run's vectors.
    view
        What is learned; the target must be the run's.
    dropout
        Share of the hidden layers' outputs that is dropped from now on.

    Raises
    ------
    UsageError
        If the run is of another encoder, target or kind.
    DataError
        If it cannot be read.
    """
    run = load_run(folder)
    _require_fit(run, base, view)
    predictor = run.predictor
    fitted = predictor.heads[0] if isinstance(predictor, Predictor) and len(predictor.heads) == 1 else None
    if isinstance(fitted, MlpHead) and len(fitted.networks_) == 1:
        return _of_network(fitted, dropout)
    if isinstance(fitted, LogisticHead):
        return _of_logistic(fitted)
    raise UsageError(
        f"`from_run` must be a run of one target with head logistic, or mlp of one member, refitted (`final='refit'`); "
        f"{Path(folder)} has {run.document['settings']['head']!r} for {len(run.targets)} targets"
    )


def _require_fit(run: Run, base: TowerEncoder, view: View) -> None:
    own, theirs = base.identity.to_json(), run.identity.to_json()
    apart = [name for name in _FITTING if own[name] != theirs[name]]
    if apart or own["preprocess"]["preset"] != theirs["preprocess"]["preset"]:
        raise UsageError(
            f"`from_run` must be a run on vectors of the encoder to be fine-tuned, {base.name}; {run.folder} is of "
            f"{run.identity.encoder} (other {', '.join(apart or ['preset'])})"
        )
    wanted = (view.task.targets, view.task.classes)
    if (run.targets, run.classes) != wanted:
        raise UsageError(
            f"`from_run` must answer for the targets {list(wanted[0])} with the classes {list(wanted[1])}; "
            f"{run.folder} has {list(run.targets)} and {list(run.classes)}"
        )


def _of_network(fitted: MlpHead, dropout: float) -> ClassificationHead:
    (network,) = fitted.networks_
    if network.normalisation == "l2":
        raise UsageError(
            "`from_run` must have an mlp on plain or standardised vectors; this one divides by their length"
        )
    widths = [weight.shape[1] for weight in network.weights]
    head = ClassificationHead(len(network.mean), widths[:-1], widths[-1], dropout=dropout)
    head.mean.copy_(torch.from_numpy(np.asarray(network.mean)))
    head.factor.copy_(torch.from_numpy(np.asarray(network.factor)))
    for layer, weight, bias in zip(head.linear_layers, network.weights, network.biases, strict=True):
        _set(layer, weight.T, bias)
    return head


def _of_logistic(fitted: LogisticHead) -> ClassificationHead:
    outputs, dim = fitted.coef_.shape
    head = ClassificationHead(dim, (), outputs)
    _set(head.linear_layers[0], fitted.coef_, fitted.intercept_)
    return head


def _set(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight, np.float32)))
        layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias, np.float32)))
