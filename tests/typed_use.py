"""What a typed notebook writes: checked by `mypy` with the product, never run."""

from __future__ import annotations

from typing import assert_type

import numpy as np
import numpy.typing as npt

import embedstore as es
import heads


def use() -> None:
    """Follow docs/python.md; every name has the type that its module gives it."""
    store = es.open_store("mura.store")
    assert_type(store, es.Store)
    assert_type(es.search(store, [0.0, 1.0], k=3, where={"anatomy": "XR_WRIST"}), list[es.Neighbor])
    view = es.load_view("mura.store", "abnormal")
    assert_type(view, es.View)
    result = heads.probe(view, heads.ProbeOptions(head="logistic"))
    run = heads.save_run("runs/a", result)
    assert_type(heads.load_run("runs/a"), heads.Run)
    assert_type(run.predict([[0.0]]), npt.NDArray[np.float64])
    assert_type(heads.measure([0, 1], [0.2, 0.8], patients=["a", "b"])["auroc"], heads.Estimate)
    assert_type(es.__version__, str)
    # A name that is not there is an error for type checkers too.
    es.opn_store("mura.store")  # type: ignore[attr-defined]
    heads.prob(view)  # type: ignore[attr-defined]
