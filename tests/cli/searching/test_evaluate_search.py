"""How well a store's neighbours agree, from the command line and in the space of a head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import run
from cli.searching.evaluate_search import evaluate_search
from embedstore.errors import UsageError
from heads.retrieval.evaluate_retrieval import RetrievalOptions
from heads.runs.run_files import load_run


def test_the_space_of_a_head_is_asked_by_patients_it_did_not_learn_from(store: Path, phantom: Path) -> None:
    found = evaluate_search(store, options=RetrievalOptions(k=3, draws=20), space=phantom / "run")
    own, hidden = found.spaces
    loaded = load_run(phantom / "run")
    assert own.quality.queries == hidden.quality.queries == len(loaded.evaluated.unit_ids)
    assert (own.width, own.space, hidden.space) == (1152, "encoder", str(phantom / "run"))
    (head,) = loaded.predictor.heads
    assert hidden.width == head.hidden_vectors(own_rows(store)).shape[1]
    assert hidden.quality.metrics["map"] != own.quality.metrics["map"]


def own_rows(store: Path):  # type: ignore[no-untyped-def]
    from embedstore.store.reader import open_store

    return open_store(store).embeddings(dtype="float32").vectors[:2]


def test_the_command_prints_what_the_nearest_say_beside_chance(
    store: Path, phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "--store", str(store), "--evaluate", "-k", "3", "--draws", "20"]
    assert run([*command, "--where", "anatomy!=XR_HAND"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("task abnormal: ")
    assert "precision@3" in printed
    assert "hubness: skewness" in printed
    assert run([*command, "--json"]) == 0
    (space,) = json.loads(capsys.readouterr().out)["spaces"]
    assert set(space["metrics"]) == {"precision", "map", "ndcg"}
    assert set(space["by_class"]) == {"normal", "abnormal"}
    assert run([*command, "--id", "x"]) == 2
    assert "--evaluate asks with the store's own units; leave --id out" in capsys.readouterr().err
    assert run(["search", "--store", str(store), "--space", "run"]) == 2


def test_a_head_without_a_hidden_layer_is_refused(
    store: Path, phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_run(phantom / "run")
    (head,) = loaded.predictor.heads
    monkeypatch.setattr(type(head), "hidden_vectors", lambda _self, _X: None)
    with pytest.raises(UsageError, match="is of head 'mlp', which has no hidden layer"):
        evaluate_search(store, space=loaded)
    with monkeypatch.context() as patched:
        patched.setitem(
            loaded.__dict__,
            "learned_units",
            frozenset(load_run(phantom / "run").learned_units | set(loaded.evaluated.unit_ids.tolist())),
        )
        with pytest.raises(UsageError, match="learned from every unit of store"):
            evaluate_search(store, space=loaded)
