"""A store that the first format version wrote is brought to the present one, whenever the process dies."""

import json
import multiprocessing
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from cli.main import run
from embedstore.errors import Reason, StoreBusy, StoreError
from embedstore.files import FAILPOINT_EXIT_CODE, FAILPOINT_VARIABLE, failpoint_names, sealed
from embedstore.store.reader import PENDING, open_store
from embedstore.store.repair import repair_store
from embedstore.store.store_lock import writer_lock
from embedstore.store.tasks import read_task
from embedstore.store.upgrade import upgrade_store
from embedstore.store.verify import verify_store
from embedstore.store.writer import open_writer
from tests.paths import DATA
from tests.stores import DIM, MeanEncoder, content_of, vectors_of

IDENTITY = MeanEncoder(square_pixels=False).identity  # of the store in tests/data
FORK = multiprocessing.get_context("fork")
# Two parts, four receipts, two group documents, and store.json at the beginning and the end.
PASSES = {"store": 2, "part": 2, "receipt": 4, "group": 2}
DEATHS = [
    f"{point}:{count}"
    for label, passes in PASSES.items()
    for count in range(1, passes + 1)
    for point in failpoint_names(label)
]


@pytest.fixture
def root(tmp_path):
    """A copy of the store of format version 1 (see tests/data/README.md)."""
    return shutil.copytree(DATA / "version-1.store", tmp_path / "s")


@pytest.fixture
def upgraded(root, tmp_path):
    shutil.copytree(root, tmp_path / "upgraded")
    upgrade_store(tmp_path / "upgraded", say=print)
    return tmp_path / "upgraded"


def files_of(root):
    """Every file of a store with its bytes, except for the lock, which holds no data."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "writer.lock"
    }


def check_contents(root):
    """Check everything that was put into the store against how it was made."""
    store = open_store(root)
    assert store.identity == IDENTITY
    embeddings = store.embeddings()
    # Row 2 failed and row 24 was never extracted; the second part holds float32.
    rows = [row for row in range(24) if row != 2]
    np.testing.assert_array_equal(embeddings.rows, rows)
    expected = vectors_of(0, 25)
    expected[20:] += np.float32(0.1)
    np.testing.assert_array_equal(embeddings.vectors, expected[rows])
    content = np.zeros((25, 32), np.uint8)
    content[rows] = content_of(0, 25)[rows]
    np.testing.assert_array_equal(store.content_sha256(), content)
    assert [(failure.row, failure.reason, failure.message) for failure in store.failures] == [
        (2, Reason.MISSING, "gone")
    ]
    assert store.status[24] == PENDING
    assert store.series_ranges() == {"series1": (3.0, 250.5)}
    assert [source.phantom for source in store.sources] == [True, False]
    assert [part.plan.vectors.dtype for part in store.parts] == ["float16", "float32"]
    receipt = store.parts[0].receipts[0]
    assert (receipt.host, receipt.seconds, receipt.versions) == ("example", 0.5, {"embedstore": "0.1.0"})
    table = pq.read_table(root / "parts" / "0000" / "tables" / "coordinates.parquet")
    assert table.to_pydict() == {"image_id": ["image0", "image3"], "x": [1.5, 2.5]}
    assert read_task(root, "t").labels.to_pydict() == {
        "unit_id": ["study0", "study1"],
        "abnormal": ["yes", "no"],
    }
    assert verify_store(root).findings == ()


def test_a_store_of_version_1_is_refused_with_the_line_that_upgrades_it(root, capsys):
    before = files_of(root)
    line = rf"{root} must have format version 3; it is older \(version 1\). Run: embedstore\.upgrade_store"
    for use in (
        open_store,
        verify_store,
        lambda path: repair_store(path, say=print),
        lambda path: open_writer(path, IDENTITY, say=print).__enter__(),
    ):
        with pytest.raises(StoreError, match=line):
            use(root)
    assert run(["info", str(root)]) == 1
    assert "Run: embed verify --upgrade" in capsys.readouterr().err
    assert files_of(root) == before


def test_everything_in_it_is_there_after_the_upgrade_and_no_vector_was_touched(root):
    before = files_of(root)
    assert upgrade_store(root, say=print)
    check_contents(root)
    after = files_of(root)
    documents = {name for name in before if name.endswith(".json") and not name.startswith("tasks/")}
    assert {name for name in before if after[name] != before[name]} == documents
    assert after.keys() - before.keys() == {"parts/0000/zarr.json", "parts/0001/zarr.json"}
    group = zarr.open_group(root / "parts" / "0000", mode="r")
    assert (group["vectors"].shape, group["vectors"].metadata.dimension_names) == (
        (20, DIM),
        ("row", "feature"),
    )


def test_a_second_upgrade_does_nothing(upgraded):
    before = files_of(upgraded)
    assert not upgrade_store(upgraded, say=print)
    assert files_of(upgraded) == before


def die(root, failpoint):
    os.environ[FAILPOINT_VARIABLE] = failpoint
    upgrade_store(root, say=print)


@pytest.mark.parametrize("failpoint", DEATHS)
def test_dying_anywhere_leaves_a_store_that_the_same_command_finishes(root, upgraded, failpoint):
    process = FORK.Process(target=die, args=(root, failpoint))
    process.start()
    process.join(60)
    assert process.exitcode == FAILPOINT_EXIT_CODE
    version = json.loads((root / "store.json").read_text())
    if failpoint in ("store.renamed:2", "store.durable:2"):
        check_contents(root)
    else:
        # Neither release mistakes a store that is half upgraded for a damaged one: it would set its parts aside.
        is_marked = version.get("upgrading_from") == 1 and version["format_version"] == 3
        assert is_marked or version["format_version"] == 1
        state = "is half upgraded" if is_marked else "is older"
        with pytest.raises(StoreError, match=rf"{state} \(version 1\). Run: embedstore\.upgrade_store"):
            repair_store(root, say=print)
    upgrade_store(root, say=lambda line: None)
    check_contents(root)
    assert files_of(root) == files_of(upgraded)


def test_a_death_after_the_last_document_is_written_is_found_by_the_passes_of_this_test(root, monkeypatch):
    """Else the list above would miss a document that an upgrade writes."""
    for label, passes in PASSES.items():
        monkeypatch.setenv(FAILPOINT_VARIABLE, f"{label}.write:{passes + 1}")
        process = FORK.Process(target=upgrade_store, args=(root,), kwargs={"say": print})
        process.start()
        process.join(60)
        assert process.exitcode == 0
        shutil.rmtree(root)
        shutil.copytree(DATA / "version-1.store", root)


def test_what_is_damaged_stays_as_it_is_and_is_repaired_afterwards(root):
    receipt = root / "parts" / "0000" / "receipts" / "000001.json"
    receipt.write_text(receipt.read_text().replace('"stop": 16', '"stop": 15'))
    plan = root / "parts" / "0001" / "part.json"
    plan.write_text(plan.read_text().replace('"rows": 5', '"rows": 6'))
    said = []
    assert upgrade_store(root, say=said.append)
    assert [line.partition(" was changed")[0] for line in said] == [
        f"not upgraded: {receipt}",
        f"not upgraded: {plan}",
    ]
    assert [finding.place for finding in verify_store(root).findings] == [
        "parts/0001/part.json",
        "parts/0000/receipts/000001.json",
    ]
    repair_store(root, say=print)
    store = open_store(root)
    rows = [0, 1, *range(3, 8), *range(16, 20)]
    np.testing.assert_array_equal(store.embeddings().vectors, vectors_of(0, 20)[rows])
    assert store.parts[0].pending == [1]


def test_a_plan_that_store_json_does_not_list_is_not_upgraded(root):
    plan = root / "parts" / "0000" / "part.json"
    document = json.loads(plan.read_text())
    other = sealed({key: entry for key, entry in document.items() if key != "sha256"} | {"rows": 19})
    plan.write_text(json.dumps(other))
    said = []
    upgrade_store(root, say=said.append)
    assert said == [f"not upgraded: {plan} is not the plan that store.json lists"]
    assert json.loads(plan.read_text()) == other


def test_a_store_that_is_being_written_is_not_upgraded(root):
    before = files_of(root)
    with writer_lock(root / "writer.lock", say=print), pytest.raises(StoreBusy):
        upgrade_store(root, say=print)
    assert files_of(root) == before


def test_the_command_upgrades_and_verifies(root, capsys):
    assert run(["verify", str(root), "--upgrade"]) == 0
    printed = capsys.readouterr()
    assert "upgraded to format version 3" in printed.err
    assert "sound (4 chunks, 24 rows read, every byte as committed); 1 row pending" in printed.out
    assert run(["verify", str(root), "--upgrade", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out)["sound"] is True


def test_a_folder_that_is_no_store_is_not_upgraded(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        upgrade_store(tmp_path / "nothing", say=print)
