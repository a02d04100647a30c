"""The corruption matrix: what verify names, and what repair heals."""

import json
import os
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest

from cli.main import run
from embedstore.errors import CorruptStore, Reason, StoreError
from embedstore.files import FAILPOINT_EXIT_CODE
from embedstore.store.documents import write_document
from embedstore.store.reader import open_store
from embedstore.store.repair import repair_store
from embedstore.store.tasks import write_task
from embedstore.store.verify import verify_store
from embedstore.store.writer import open_writer
from embedstore.task import Task
from tests.stores import TOKEN_IDENTITY, known_result, make_store, manifest_of, store_bytes, vectors_of

PART = "parts/0000"


@pytest.fixture
def root(tmp_path):
    """A store of 20 rows with tokens in chunks of 8, with one failed row and one task."""
    path = tmp_path / "s"
    make_store(path, rows=20, chunk_rows=8, failures={2: (Reason.MISSING, "gone")}, identity=TOKEN_IDENTITY)
    labels = pa.table({"unit_id": ["study0", "study1"], "abnormal": ["yes", "no"]})
    write_task(path, Task("t", "study", ("abnormal",), ("no", "yes"), labels))
    return path


def extract_again(root):
    """Do what `embed extract` does after a repair: plan what is unknown, compute what is pending."""
    with open_writer(root, TOKEN_IDENTITY, say=lambda line: None) as writer:
        if not open_store(root).parts:
            writer.plan_part(
                manifest_of(20), dataset="test", data_root="images", chunk_rows=8, dtype="float16"
            )
        for part in open_store(root).parts:
            for chunk in part.pending:
                start, stop = part.plan.bounds(chunk)
                failures = {2: (Reason.MISSING, "gone")} if chunk == 0 else {}
                writer.commit(part.plan, chunk, known_result(TOKEN_IDENTITY, start, stop, failures))


def flip(path, at=20):
    payload = bytearray(path.read_bytes())
    payload[at] ^= 4
    path.write_bytes(payload)


def swap(one, other):
    payload = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(payload)


def edit_json(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def chunk(root, chunk, array="vectors"):
    return root / PART / array / "c" / str(chunk) / ("0/0" if array == "tokens" else "0")


def receipt(root, chunk):
    return root / PART / "receipts" / f"{chunk:06d}.json"


DAMAGES = {
    "a flipped bit in a vector": (lambda r: flip(chunk(r, 1)), r"chunk 1, rows 8 to 15\): its bytes are not"),
    "a flipped bit in a content digest": (
        lambda r: flip(chunk(r, 2, "content")),
        r"content/c/2/0 \(part 0, chunk 2, rows 16 to 19\): its bytes are not",
    ),
    "a flipped bit in a token": (
        lambda r: flip(chunk(r, 1, "tokens")),
        r"tokens/c/1/0/0 \(part 0, chunk 1, rows 8 to 15\): its bytes are not",
    ),
    "two swapped chunks of tokens": (
        lambda r: swap(chunk(r, 0, "tokens"), chunk(r, 1, "tokens")),
        r"tokens/c/0/0/0 \(part 0, chunk 0, rows 0 to 7\): its bytes are not",
    ),
    "a truncated chunk of tokens": (
        lambda r: chunk(r, 2, "tokens").write_bytes(chunk(r, 2, "tokens").read_bytes()[:-1]),
        r"chunk 2, rows 16 to 19\): must have 100 bytes, found 99",
    ),
    "a deleted chunk of tokens": (
        lambda r: chunk(r, 0, "tokens").unlink(),
        r"tokens/c/0/0/0 \(part 0, chunk 0, rows 0 to 7\): cannot be read: No such file",
    ),
    "a flipped bit in the padding of the last chunk": (
        lambda r: flip(chunk(r, 2), at=50),
        r"chunk 2, rows 16 to 19\): its checksum does not belong",
    ),
    "a truncated chunk": (
        lambda r: chunk(r, 1).write_bytes(chunk(r, 1).read_bytes()[:-7]),
        r"chunk 1, rows 8 to 15\): must have 68 bytes, found 61",
    ),
    "an emptied chunk": (
        lambda r: chunk(r, 0).write_bytes(b""),
        r"chunk 0, rows 0 to 7\): must have 68 bytes, found 0",
    ),
    "a zeroed chunk": (
        lambda r: chunk(r, 1).write_bytes(bytes(68)),
        r"chunk 1, rows 8 to 15\): its bytes are not",
    ),
    "two swapped chunks": (
        lambda r: swap(chunk(r, 1), chunk(r, 2)),
        r"chunk 1, rows 8 to 15\): (holds the bytes of chunk 2|its bytes)",
    ),
    "a deleted chunk": (
        lambda r: chunk(r, 1).unlink(),
        r"chunk 1, rows 8 to 15\): cannot be read: No such file",
    ),
    "an edited receipt": (
        lambda r: edit_json(receipt(r, 1), lambda d: d["arrays"]["vectors"].update(sha256="0" * 64)),
        r"receipts/000001.json \(part 0, chunk 1, rows 8 to 15\): .*was changed after it was written",
    ),
    "an emptied receipt": (
        lambda r: receipt(r, 2).write_bytes(b""),
        r"000002.json \(part 0, chunk 2, rows 16 to 19\): .*must hold JSON",
    ),
    "two swapped receipts": (
        lambda r: swap(receipt(r, 0), receipt(r, 1)),
        r"000000.json \(part 0, chunk 0, rows 0 to 7\): .*belongs to chunk 1",
    ),
    "a receipt of no chunk": (
        lambda r: shutil.copy(receipt(r, 0), r / PART / "receipts" / "000009.json"),
        r"000009.json: belongs to no chunk",
    ),
    "edited array metadata": (
        lambda r: (r / PART / "vectors" / "zarr.json").write_text("{}"),
        r"vectors/zarr.json: cannot be read by Zarr",
    ),
    "array metadata of another shape": (
        lambda r: edit_json(r / PART / "content" / "zarr.json", lambda d: d.update(shape=[21, 32])),
        r"content/zarr.json: describes",
    ),
    "array metadata with other names of dimensions": (
        lambda r: edit_json(r / PART / "tokens" / "zarr.json", lambda d: d.pop("dimension_names")),
        r"tokens/zarr.json: describes",
    ),
    "edited group metadata": (
        lambda r: edit_json(r / PART / "zarr.json", lambda d: d.update(attributes={"x": 1})),
        r"parts/0000/zarr.json: does not describe the part's arrays",
    ),
    "deleted group metadata": (
        lambda r: (r / PART / "zarr.json").unlink(),
        r"parts/0000/zarr.json: cannot be read",
    ),
    "an edited manifest": (lambda r: flip(r / PART / "manifest.parquet"), r"manifest.parquet: was changed"),
    "a deleted manifest": (
        lambda r: (r / PART / "manifest.parquet").unlink(),
        r"manifest.parquet: cannot be read",
    ),
    "an edited plan": (
        lambda r: edit_json(r / PART / "part.json", lambda d: d.update(rows=19)),
        r"part.json: .*was changed after it was written",
    ),
    "a deleted plan": (lambda r: (r / PART / "part.json").unlink(), r"part.json: .*is missing"),
    "a deleted part": (lambda r: shutil.rmtree(r / PART), r"part.json: .*is missing"),
    "an edited store.json": (
        lambda r: edit_json(r / "store.json", lambda d: d["identity"].update(pooling="map")),
        r"store.json: .*was changed after it was written",
    ),
    "a deleted store.json": (lambda r: (r / "store.json").unlink(), r"store.json: .*half deleted"),
    "edited labels": (
        lambda r: flip(r / "tasks" / "t" / "labels.parquet"),
        r"tasks/t: .*labels.parquet was changed",
    ),
    "deleted labels": (lambda r: (r / "tasks" / "t" / "labels.parquet").unlink(), r"tasks/t: .*is missing"),
}


def test_a_sound_store_has_no_findings_and_every_row_is_counted(root):
    verification = verify_store(root)
    assert verification.findings == ()
    assert (verification.chunks, verification.rows, verification.pending) == (3, 20, 0)


def test_rows_without_a_finished_chunk_are_pending_in_a_sound_store(root, capsys):
    (root / PART / "receipts" / "000001.json").unlink()
    verification = verify_store(root)
    assert verification.findings == ()
    assert (verification.chunks, verification.rows, verification.pending) == (2, 12, 8)
    assert run(["verify", str(root)]) == 0
    assert "sound (2 chunks, 12 rows read, every byte as committed); 8 rows pending. Run: embed extract" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_repair_leads_back_to_the_reference(root, tmp_path, damage):
    shutil.copytree(root, tmp_path / "reference")
    inflict, message = DAMAGES[damage]
    inflict(root)
    named = [str(finding) for finding in verify_store(root).findings]
    assert any(re.search(message, line) for line in named), named
    said = []
    repair_store(root, say=said.append)
    assert said
    assert verify_store(root).findings == ()
    extract_again(root)
    labels = pa.table({"unit_id": ["study0", "study1"], "abnormal": ["yes", "no"]})
    write_task(root, Task("t", "study", ("abnormal",), ("no", "yes"), labels))
    assert verify_store(root).findings == ()
    embeddings, reference = open_store(root).embeddings(), open_store(tmp_path / "reference").embeddings()
    np.testing.assert_array_equal(embeddings.vectors, reference.vectors)
    assert list(embeddings.image_ids) == list(reference.image_ids)
    if not (root / "set-aside").exists():
        assert store_bytes(root) == store_bytes(tmp_path / "reference")


@pytest.mark.parametrize(
    "point", ["vectors.renamed", "further.renamed", "content.written", "content.durable", "receipt.fsynced"]
)
def test_an_interrupted_retry_is_cleared_without_losing_a_row(root, tmp_path, monkeypatch, point):
    shutil.copytree(root, tmp_path / "reference")
    child = os.fork()
    if child == 0:
        monkeypatch.setenv("EMBEDSTORE_FAILPOINT", point)
        with open_writer(root, TOKEN_IDENTITY, say=print) as writer:
            writer.commit(open_store(root).parts[0].plan, 0, known_result(TOKEN_IDENTITY, 0, 8))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == FAILPOINT_EXIT_CODE
    np.testing.assert_array_equal(
        open_store(root).embeddings().vectors, np.delete(vectors_of(0, 20), 2, axis=0)
    )
    findings = verify_store(root).findings
    assert [finding.problem for finding in findings] == [
        "holds values below failed rows: a retry was interrupted"
    ]
    repair_store(root, say=lambda line: None)
    assert store_bytes(root) == store_bytes(tmp_path / "reference")


def test_only_the_damaged_chunk_is_done_again(root):
    flip(chunk(root, 1))
    repair_store(root, say=lambda line: None)
    assert open_store(root).parts[0].pending == [1]


def test_a_deleted_receipt_is_no_damage_but_a_chunk_that_is_not_done(root):
    receipt(root, 1).unlink()
    assert verify_store(root).findings == ()
    assert open_store(root).parts[0].pending == [1]


def test_chunks_of_an_unlisted_part_are_found_and_set_aside(root):
    shutil.copytree(root / PART, root / "parts" / "0001")
    assert "parts/0001: holds finished chunks but store.json does not list it" in map(
        str, verify_store(root).findings
    )
    repair_store(root, say=lambda line: None)
    assert verify_store(root).findings == ()
    assert (root / "set-aside" / "0001" / "manifest.parquet").exists()


def test_leftovers_of_an_interrupted_planning_are_no_damage_and_are_replaced(root):
    (root / "parts" / "0001" / "receipts").mkdir(parents=True)
    (root / "parts" / "0001" / "manifest.parquet").write_bytes(b"half")
    assert verify_store(root).findings == ()
    with open_writer(root, TOKEN_IDENTITY, say=print) as writer:
        writer.plan_part(manifest_of(2, first=20), dataset="t", data_root="r", chunk_rows=8, dtype="float16")
    assert open_store(root).rows == 22


def test_an_identity_lost_in_every_copy_cannot_be_invented(root):
    (root / "store.json").unlink()
    (root / PART / "part.json").unlink()
    with pytest.raises(StoreError, match="no part holds a readable copy of the identity"):
        repair_store(root, say=print)


def test_a_folder_that_is_no_store_is_not_repaired(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        repair_store(tmp_path / "nothing", say=print)
    (tmp_path / "x").mkdir()
    with pytest.raises(StoreError, match="is not a store"):
        repair_store(tmp_path / "x", say=print)
    assert list((tmp_path / "x").iterdir()) == []


def test_a_store_of_a_newer_format_is_left_alone(root):
    write_document(root / "store.json", {"format": "embedstore", "format_version": 4}, label="store")
    before = (root / "store.json").read_bytes()
    with pytest.raises(StoreError, match="format version 4"):
        repair_store(root, say=print)
    assert (root / "store.json").read_bytes() == before


def test_an_opened_store_refuses_a_damaged_document_at_once(root):
    edit_json(root / PART / "part.json", lambda document: document.update(root="elsewhere"))
    with pytest.raises(CorruptStore, match=r"part\.json was changed after it was written"):
        open_store(root)
