"""What a notebook user finds: the names of the two roots, cheap to import, typed, short to print, running examples."""

from __future__ import annotations

import ast
import doctest
import inspect
import os
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest

import embedstore as es
import heads

ROOTS = (es, heads)
# Public functions and classes without examples -> why; docs/python.md holds the same list.
WITHOUT_EXAMPLE = {
    "CorruptStore": "an error",
    "DataError": "an error",
    "EmbedError": "an error",
    "IdentityMismatch": "an error",
    "ImageRefused": "an error",
    "MissingDependency": "an error",
    "MissingWeights": "an error",
    "StoreBusy": "an error",
    "StoreError": "an error",
    "UsageError": "an error",
    "Choose": "two words",
    "DatasetReader": "a contract",
    "Encoder": "a contract",
    "Head": "a contract",
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
    (name, test)
    for name, thing in PUBLIC
    if callable(thing) and not isinstance(thing, type(int | str))
    for test in with_examples(thing)
]


@pytest.mark.parametrize(("name", "test"), EXAMPLES, ids=[test.name for _, test in EXAMPLES])
def test_examples_run_as_they_stand(name, test, demo, monkeypatch):
    folder, names = demo
    monkeypatch.chdir(folder)
    test.globs = {
        **vars(sys.modules[getattr(*[r for r in ROOTS if name in r.__all__][:1], name).__module__]),
        **names,
    }
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    failures: list[str] = []
    runner.run(test, out=failures.append)
    assert not runner.failures, "".join(failures)


def test_every_public_function_has_an_example():
    shown = {name for name, _ in EXAMPLES}
    lacking = [name for name, thing in PUBLIC if needs_example(name, thing) and name not in shown]
    assert not lacking
    assert set(WITHOUT_EXAMPLE) <= {name for name, _ in PUBLIC}, "a name that is gone needs no reason"
