"""The crash campaign: die at every failpoint and at random moments; nothing committed is lost or changed."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from embedstore.files import FAILPOINT_EXIT_CODE
from embedstore.store.reader import open_store
from embedstore.store.verify import verify_store
from embedstore.store.writer import FAILPOINTS
from tests.crash_driver import PICTURES, run_extraction
from tests.pictures import expected_tokens, expected_vectors, write_pictures
from tests.stores import store_bytes

KILLS = 30
# The fork server holds the imports, so that each process starts in the write path and not in Python's.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.crash_driver"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, and the store that an undisturbed extraction makes of them."""
    path = tmp_path_factory.mktemp("crash")
    write_pictures(path / "images", range(PICTURES))
    process = SERVER.Process(target=run_extraction, args=(path / "images", path / "reference"))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    return path


def check_rows_and_resume(folder: Path, store: Path) -> int:
    """Check that what is committed is right, resume, compare with the reference; return rows found."""
    committed = 0
    # Killed before store.json was there, nothing was promised yet.
    if (store / "store.json").exists():
        embeddings = open_store(store).embeddings()
        np.testing.assert_array_equal(
            embeddings.vectors, expected_vectors(PICTURES).astype(np.float16)[embeddings.rows]
        )
        tokens = open_store(store).array("tokens").all()
        np.testing.assert_array_equal(tokens.rows, embeddings.rows)
        np.testing.assert_array_equal(
            tokens.values, expected_tokens(PICTURES).astype(np.float16)[embeddings.rows]
        )
        assert verify_store(store).findings == ()
        committed = len(embeddings.rows)
    run = SERVER.Process(target=run_extraction, args=(folder / "images", store))
    run.start()
    run.join(60)
    assert run.exitcode == 0
    assert store_bytes(store) == store_bytes(folder / "reference")
    return committed


def test_every_failpoint_is_passed_by_an_extraction():
    labels = {name.rpartition(".")[0] for name in FAILPOINTS}
    planned = {"store", "manifest", "table", "group", "part", "labels", "task"}
    assert labels == planned | {"vectors", "further", "content", "receipt"}
    assert len(FAILPOINTS) == 55


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_dying_at_a_failpoint_loses_nothing(folder, tmp_path, failpoint):
    # The third chunk for what is written per chunk; the second time for store.json, which is first written empty.
    label = failpoint.partition(".")[0]
    count = {"vectors": 3, "further": 3, "content": 3, "receipt": 3, "store": 2}.get(label, 1)
    process = SERVER.Process(
        target=run_extraction, args=(folder / "images", tmp_path / "s", f"{failpoint}:{count}")
    )
    process.start()
    process.join(60)
    assert process.exitcode == FAILPOINT_EXIT_CODE
    committed = check_rows_and_resume(folder, tmp_path / "s")
    if failpoint in ("receipt.renamed", "receipt.durable"):
        assert committed == 9
    elif label in ("vectors", "further", "content", "receipt"):
        assert committed == 6
    else:
        assert committed == 0


def test_dying_while_the_first_store_json_is_written_loses_nothing(folder, tmp_path):
    for number, failpoint in enumerate(name for name in FAILPOINTS if name.startswith("store.")):
        process = SERVER.Process(
            target=run_extraction, args=(folder / "images", tmp_path / f"s{number}", failpoint)
        )
        process.start()
        process.join(60)
        assert process.exitcode == FAILPOINT_EXIT_CODE
        assert check_rows_and_resume(folder, tmp_path / f"s{number}") == 0


def test_killing_at_random_moments_loses_nothing(folder, tmp_path):
    chance = random.Random(0)
    partial = 0
    store = tmp_path / "s"
    for _ in range(KILLS):
        process = SERVER.Process(target=run_extraction, args=(folder / "images", store))
        wanted = receipts_of(store) + chance.choice([0, 0, 1, 2])
        process.start()
        # Counted in receipts and not in seconds, so that the kills land in the run on a busy machine too.
        while process.is_alive() and receipts_of(store) < wanted:
            time.sleep(0.001)
        process.join(chance.uniform(0.0, 0.02 if wanted else 0.3))
        process.kill()
        process.join(60)
        if (store / "store.json").exists():
            embeddings = open_store(store).embeddings()
            partial += 0 < len(embeddings.rows) < PICTURES
            np.testing.assert_array_equal(
                embeddings.vectors, expected_vectors(PICTURES).astype(np.float16)[embeddings.rows]
            )
            # A store that is half done is killed again while it resumes; a finished one makes room for another.
            if len(embeddings.rows) == PICTURES:
                check_rows_and_resume(folder, store)
                shutil.rmtree(store)
    check_rows_and_resume(folder, store)
    # Otherwise every kill came too early or too late, and this test shows nothing.
    assert partial >= KILLS // 3


def receipts_of(store: Path) -> int:
    return len(list((store / "parts" / "0000" / "receipts").glob("*.json")))
