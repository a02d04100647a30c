"""What a notebook user finds: the names of the two roots, cheap to import, typed, short to print, running examples."""

from __future__ import annotations

import ast
import doctest
import inspect
import os
import pickle
import re
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest

import embedstore as es
import heads
from cli.wording import ADVICE, for_command_line
from embedstore.errors import Advice
from tests.paths import PROJECT
from tests.stores import make_store

ROOTS = (es, heads)
# Public functions and classes without examples -> why; docs/python.md holds the same list.
WITHOUT_EXAMPLE = {
    "CorruptStore": "an error",
    "DataError": "an error",
    "IdentityMismatch": "an error",
    "ImageRefused": "an error",
    "MissingDependency": "an error",
    "MissingWeights": "an error",
    "PluginError": "an error",
    "StoreBusy": "an error",
    "StoreError": "an error",
    "UsageError": "an error",
    "Choose": "two words",
    "DatasetReader": "a contract",
    "Encoder": "a contract",
    "FamilyDefaults": "part of a contract",
    "Head": "a contract",
    "HeadDefaults": "part of a contract",
    "HeadFamily": "a contract",
    "OutOfFold": "part of a contract",
    "Training": "part of a contract",
}


def public(root):
    return [(name, getattr(root, name)) for name in root.__all__ if not name.startswith("__")]


PUBLIC = [(name, thing) for root in ROOTS for name, thing in public(root)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with a phantom MURA, its store and two runs, as the examples know it."""
    folder = tmp_path_factory.mktemp("demo")
    before = Path.cwd()
    os.chdir(folder)
    try:
        es.write_phantom_mura("", patients=60, seed=0)
        es.extract("mura", "mura.store", root="MURA-v1.1")
        view = es.load_view("mura.store", "abnormal")
        result = heads.probe(view, heads.ProbeOptions(draws=50))
        run = heads.save_run("runs/abnormal-logistic", result)
        heads.save_run("runs/nearest", heads.probe(view, heads.ProbeOptions(head="knn", draws=50)))
    finally:
        os.chdir(before)
    names = {"es": es, "heads": heads, "np": np, "store": es.open_store(folder / "mura.store")}
    return folder, names | {"view": view, "result": result, "run": run}


def test_every_name_that_a_root_lists_is_there_once():
    for root in ROOTS:
        assert len(set(root.__all__)) == len(root.__all__)
        assert {name for name, _ in public(root)} <= set(dir(root))
        with pytest.raises(AttributeError, match=f"module '{root.__name__}' has no attribute 'opn_store'"):
            root.opn_store  # noqa: B018
        typed = {
            alias.name
            for node in ast.walk(ast.parse(Path(root.__file__).read_text()))
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.startswith(root.__name__)
            for alias in node.names
        } - {"lazy_names"}
        assert typed == {name for name, _ in public(root)}, "what type checkers see is what there is"


def test_importing_the_roots_costs_next_to_nothing():
    """At most 0.1 s beside NumPy; measured three times, because other processes may be at work."""
    program = (
        "import sys, time, numpy\n"
        "began = time.perf_counter(); import embedstore, heads\n"
        "print(time.perf_counter() - began)\n"
        "print([name for name in ('pyarrow', 'torch', 'sklearn', 'zarr', 'click') if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        took, heavy = done.stdout.splitlines()
        assert heavy == "[]"
        seconds.append(float(took))
    assert min(seconds) < 0.1


def test_the_version_is_that_of_the_installed_package():
    from importlib.metadata import version

    assert es.__version__ == version("embedstore")


def test_the_package_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "embedstore", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"embed, version {es.__version__}")


def with_examples(thing) -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=inspect.isclass(thing))
    return [test for test in finder.find(thing, thing.__name__) if test.examples]


def needs_example(name, thing) -> bool:
    if not callable(thing) or name in WITHOUT_EXAMPLE:
        return False
    # What functions return, and frozen bags of options, are shown where they are used.
    return not (inspect.isclass(thing) and is_dataclass(thing))


EXAMPLES = [
    (getattr(thing, "__module__", ""), test)
    for _, thing in PUBLIC
    if inspect.isfunction(thing) or inspect.isclass(thing)
    for test in with_examples(thing)
]


@pytest.mark.parametrize(("module", "test"), EXAMPLES, ids=[test.name for _, test in EXAMPLES])
def test_examples_run_as_they_stand(module, test, demo, monkeypatch, capsys):
    folder, names = demo
    if "to_pandas" in test.name:
        pytest.importorskip("pandas", reason="needs pandas")
    monkeypatch.chdir(folder)
    test.globs = {**vars(sys.modules[module]), **names}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(test)
    assert not runner.failures, capsys.readouterr().out


def test_every_public_function_has_an_example():
    shown = {test.name.partition(".")[0] for _, test in EXAMPLES}
    lacking = [name for name, thing in PUBLIC if needs_example(name, thing) and name not in shown]
    assert not lacking
    assert set(WITHOUT_EXAMPLE) <= {name for name, _ in PUBLIC} - shown, "it has one, or is gone"


def test_what_a_notebook_shows_is_short(demo):
    _, names = demo
    store = names["store"]
    collection = es.read_dataset("mura", demo[0] / "MURA-v1.1")
    shown = [
        store,
        store.embeddings(),
        names["view"],
        es.load_units(store, "study"),
        names["run"],
        names["result"],
    ]
    shown += [
        es.build_index(store),
        es.search(store, store.image_ids[0], k=1)[0],
        collection,
        collection.manifest,
    ]
    for thing in shown:
        text = repr(thing).replace(str(demo[0]), "")
        assert text.startswith(f"{type(thing).__name__}("), text
        assert len(text) < 350, text
        assert thing._repr_html_().count("<tr>") < 12
    assert repr(store.embeddings()) == f"Embeddings(images={store.rows}, dim=1152, dtype='float16')"


def test_a_table_in_a_notebook_escapes_what_a_store_says(tmp_path):
    folder = tmp_path / "<b>bold"
    make_store(folder)
    html = es.open_store(folder)._repr_html_()
    assert "&lt;b&gt;bold" in html
    assert "<b>" not in html


def test_one_row_is_one_unit_unless_said_otherwise_and_lists_are_arrays(demo):
    folder, names = demo
    run = heads.load_run(str(folder / "runs/abnormal-logistic"))
    vectors = names["store"].embeddings().vectors[:3]
    single = run.predict(vectors)
    np.testing.assert_array_equal(single, run.predict(vectors.tolist(), [0, 1, 2]))
    np.testing.assert_allclose(run.predict(vectors, [0, 0, 0]).sum(axis=-1), 1)
    with pytest.raises(es.DataError, match=r"wants vectors of shape \(n, 1152\); found \(1, 3\)"):
        run.predict([[1.0, 2.0, 3.0]])


def test_search_says_what_a_query_may_be(demo):
    folder, names = demo
    with pytest.raises(es.DataError, match=r"query 'nowhere.png' is neither an image of store .* nor a file"):
        es.search(folder / "mura.store", "nowhere.png")
    with pytest.raises(
        es.DataError, match=r"vector of shape \(1152,\), an image id or a file; found .* \(3,\)"
    ):
        es.search(names["store"], [1.0, 2.0, 3.0])


def test_a_query_by_id_leaves_itself_and_on_request_its_patient_out(demo):
    _, names = demo
    store = names["store"]
    image_id = store.image_ids[0]
    patient = store.table.column("patient_id")[0].as_py()
    found = es.search(store, image_id, k=len(store.image_ids))
    assert {neighbor.image_id for neighbor in found} == set(store.image_ids) - {image_id}
    others = es.search(store, image_id, k=len(store.image_ids), exclude_patient=patient)
    assert patient not in {neighbor.record["patient_id"] for neighbor in others}
    by_vector = es.search(store, store.vector(image_id).tolist(), k=1)
    assert by_vector[0].image_id == image_id


def test_measured_values_are_those_of_scikit_learn():
    from sklearn.metrics import brier_score_loss, roc_auc_score

    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 80)
    p = np.clip(0.3 * y + generator.random(80) * 0.7, 0, 1)
    found = heads.measure(
        y.tolist(), p.tolist(), patients=np.arange(80) // 2, metrics=["auroc", "brier"], draws=50
    )
    assert found["auroc"].value == pytest.approx(roc_auc_score(y, p))
    assert found["brier"].value == pytest.approx(brier_score_loss(y, p))
    assert found["auroc"].low < found["auroc"].value < found["auroc"].high
    with pytest.raises(
        es.UsageError, match=r"one row for each unit; found shapes \(2,\), \(1, 2\) and \(2,\)"
    ):
        heads.measure([0, 1], [0.5], patients=["a", "b"])
    with pytest.raises(es.UsageError, match=r"whole numbers from 0 to 1; found int64 2$"):
        heads.measure([2], [0.5], patients=["a"])
    with pytest.raises(es.UsageError, match=r"metric must be one of auroc.*Did you mean .auroc."):
        heads.measure([0, 1], [0.5, 0.5], patients=["a", "b"], metrics=["aurok"])


def test_runs_that_cannot_be_paired_are_refused(demo):
    _, names = demo
    with pytest.raises(es.UsageError, match="runs must be two or more; found 1"):
        heads.compare([names["run"]])


def test_a_table_has_ids_labels_columns_and_vectors(demo):
    _, names = demo
    store = names["store"]
    table = store.to_arrow("abnormal", columns=["anatomy"], vectors=True)
    assert table.column_names == [
        "image_id", "patient_id", "study_id", "split", "anatomy", "abnormal", "vector",
    ]  # fmt: skip
    embeddings = store.embeddings(dtype=np.float32)
    assert table.column("image_id").to_pylist() == embeddings.image_ids.tolist()
    np.testing.assert_array_equal(
        np.array(table.column("vector").to_pylist(), np.float32), embeddings.vectors
    )
    # MURA says the label in the folder's name.
    for image_id, label in zip(
        table.column("image_id").to_pylist(), table.column("abnormal").to_pylist(), strict=True
    ):
        assert label == ("abnormal" if "_positive/" in image_id else "normal")
    assert store.to_arrow("abnormal", columns="anatomy").equals(
        store.to_arrow("abnormal", columns=["anatomy"])
    )
    with pytest.raises(es.UsageError, match=r"has no column 'anatomi'.*Did you mean 'anatomy'"):
        store.to_arrow(columns=["anatomi"])


def test_without_pandas_the_install_line_is_said(demo, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(es.MissingDependency, match=r"pip install 'embedstore\[pandas\]'"):
        demo[1]["store"].to_pandas()


def test_a_data_frame_holds_what_the_table_does(demo):
    pytest.importorskip("pandas", reason="needs pandas")
    store = demo[1]["store"]
    frame = store.to_pandas("abnormal", columns=["anatomy"], vectors=True)
    table = store.to_arrow("abnormal", columns=["anatomy"])
    assert frame["abnormal"].tolist() == table.column("abnormal").to_pylist()
    np.testing.assert_array_equal(np.stack(frame["vector"]), store.embeddings(dtype=np.float32).vectors)


def test_extraction_by_names_needs_the_root_of_the_data_set(tmp_path):
    with pytest.raises(es.UsageError, match="`root` is needed with the name of a data set, 'mura'"):
        es.extract("mura", tmp_path / "s")


@pytest.mark.parametrize("kind", [es.CorruptStore, es.UsageError, es.MissingDependency])
def test_an_error_keeps_its_advice_on_the_way_from_another_process(kind):
    error = kind("x.store is damaged", advice=Advice.REPAIR)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "x.store is damaged. Run: embedstore.repair_store(path)"
    assert again.problem == "x.store is damaged"


def test_the_command_line_has_words_for_every_advice():
    assert ADVICE.keys() == set(Advice)
    for advice in Advice:
        said = for_command_line(str(es.StoreError("It is so", advice=advice)))
        assert said == f"It is so. {ADVICE[advice]}"
        # What Python is told to call is there.
        for root, name in re.findall(r"\b(embedstore|heads)\.(\w+)", advice.value):
            assert name in {"embedstore": es, "heads": heads}[root].__all__


def test_library_messages_speak_no_option():
    """Options are the command line's: the library names its arguments, in backquotes where they become options."""
    option = re.compile(r"(?<![\w-])--[a-z]")
    for package in ("embedstore", "heads"):
        for path in (PROJECT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Raise):
                    continue
                for text in ast.walk(node):
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        said = text.value.replace("ray start --head", "")
                        assert not option.search(said), (path.name, said)
                        assert "`embed " not in said, (path.name, said)
                        assert "embed verify" not in said, (path.name, said)
