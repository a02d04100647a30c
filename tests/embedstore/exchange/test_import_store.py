import json
import multiprocessing
import os

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from embedstore.errors import DataError, IdentityMismatch, UsageError
from embedstore.exchange.declared import declared_identity, parse_declaration
from embedstore.exchange.export import export_store
from embedstore.exchange.import_store import ImportOptions, import_vectors
from embedstore.extraction.extract import extract
from embedstore.files import FAILPOINT_EXIT_CODE, FAILPOINT_VARIABLE
from embedstore.identity import identity_from_json
from embedstore.queries.load_view import load_view
from embedstore.queries.similar_images import search
from embedstore.store.reader import open_store
from embedstore.store.tasks import write_task
from embedstore.store.verify import verify_store
from embedstore.task import Task
from tests.pictures import collection_of, write_pictures
from tests.stores import IDENTITY, MeanEncoder, make_store, store_bytes

DECLARED = {"encoder": "uni2", "patch_px": "256"}
BY_ID = ImportOptions(id_column="id")


def vectors(count, dim=8, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(dtype)


def write_npz(path, ids, found):
    np.savez(path, features=found, id=np.array(ids))
    return path


def write_slides(folder, counts, *, layers=False):
    """Write a file for each slide as CLAM (N x D) or, with `layers`, as TRIDENT (1 x N x D); return their vectors."""
    folder.mkdir()
    held = {}
    for number, count in enumerate(counts):
        held[f"S{number}"] = vectors(count, seed=number)
        with h5py.File(folder / f"S{number}.h5", "w") as file:
            file["features"] = held[f"S{number}"][None] if layers else held[f"S{number}"]
            file["coords"] = np.arange(2 * count).reshape(count, 2) + number
    return held


def test_a_file_with_ids_becomes_an_ordinary_store(tmp_path):
    ids, found = [f"a{row}" for row in range(40)], vectors(40)
    write_npz(tmp_path / "f.npz", ids, found)
    summary = import_vectors(tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, options=BY_ID)
    assert (summary.images, summary.valid, summary.known, dict(summary.failed)) == (40, 40, 0, {})
    store = open_store(tmp_path / "s")
    np.testing.assert_array_equal(store.select(ids).vectors, found)
    assert store.dtype == np.float32
    assert not verify_store(tmp_path / "s").findings
    assert store.identity.to_json()["declared"] == DECLARED
    assert identity_from_json(store.identity.to_json(), source="test") == store.identity


def test_half_floats_stay_half_floats(tmp_path):
    found = vectors(5, dtype=np.float16)
    write_npz(tmp_path / "f.npz", list("abcde"), found)
    import_vectors(tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, options=BY_ID)
    store = open_store(tmp_path / "s")
    assert store.dtype == np.float16
    np.testing.assert_array_equal(store.embeddings().vectors, found)


def test_a_computed_identity_does_not_mention_what_is_declared():
    assert "declared" not in IDENTITY.to_json()


@pytest.mark.parametrize("layers", [False, True])
def test_slides_of_clam_and_trident_become_studies(tmp_path, layers):
    held = write_slides(tmp_path / "h5_files", [3, 12], layers=layers)
    (tmp_path / "t.csv").write_text("case_id,slide_id,site\nP1,S0,north\nP1,S1,south\n")
    options = ImportOptions(columns={"patient_id": "case_id"})
    # CLAM's own folder holds h5_files and pt_files.
    import_vectors(tmp_path, tmp_path / "s", declare=DECLARED, manifest=tmp_path / "t.csv", options=options)
    table = open_store(tmp_path / "s").table
    assert table.column("image_id").to_pylist()[:4] == ["S0/0000", "S0/0001", "S0/0002", "S1/0000"]
    assert table.column("study_id").to_pylist() == ["S0"] * 3 + ["S1"] * 12
    assert set(table.column("patient_id").to_pylist()) == {"P1"}
    assert table.column("frame").to_pylist() == [*range(3), *range(12)]
    assert table.column("coords_x").to_pylist()[:4] == [0, 2, 4, 1]
    assert table.column("coords_y").to_pylist()[2] == 5
    assert table.column("site").to_pylist()[3] == "south"
    np.testing.assert_array_equal(
        open_store(tmp_path / "s").embeddings().vectors, np.concatenate([held["S0"], held["S1"]])
    )


def test_a_slides_own_vector_is_one_image(tmp_path):
    (tmp_path / "slides").mkdir()
    for name in ("A", "B"):
        with h5py.File(tmp_path / "slides" / f"{name}.h5", "w") as file:
            file["features"] = vectors(1, seed=ord(name))[0]
            file["coords"] = np.zeros((7, 2), np.int64)
    import_vectors(tmp_path / "slides", tmp_path / "s", declare=DECLARED)
    store = open_store(tmp_path / "s")
    assert store.image_ids.tolist() == ["A", "B"]
    np.testing.assert_array_equal(store.vector("B"), vectors(1, seed=ord("B"))[0])


def test_the_table_decides_what_is_imported(tmp_path):
    write_npz(tmp_path / "f.npz", list("abcd"), vectors(4))
    (tmp_path / "t.csv").write_text("image_id,patient_id,age\nc,P1,50\nx,P2,51\na,P3,52\n")
    summary = import_vectors(
        tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, manifest=tmp_path / "t.csv", options=BY_ID
    )
    assert (summary.unlisted, summary.absent) == (["b", "d"], ["x"])
    store = open_store(tmp_path / "s")
    assert store.image_ids.tolist() == ["a", "c"]
    np.testing.assert_array_equal(store.embeddings().vectors, vectors(4)[[0, 2]])
    assert store.table.column("patient_id").to_pylist() == ["P3", "P1"]


def test_a_table_that_names_no_vector_is_refused_with_examples(tmp_path):
    write_npz(tmp_path / "f.npz", ["a.svs"], vectors(1))
    (tmp_path / "t.csv").write_text("image_id\na\n")
    with pytest.raises(
        DataError, match=r"none of its 1 values of 'image_id' names a vector; they look like 'a', .*'a\.svs'"
    ):
        import_vectors(
            tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, manifest=tmp_path / "t.csv", options=BY_ID
        )
    assert not (tmp_path / "s").exists()


def test_vectors_in_the_order_of_the_table(tmp_path):
    save_file({"features": vectors(3)}, tmp_path / "f.safetensors")
    (tmp_path / "t.csv").write_text("image_id,patient_id\nz,P1\ny,P2\nx,P3\n")
    options = ImportOptions(in_order=True)
    import_vectors(
        tmp_path / "f.safetensors",
        tmp_path / "s",
        declare=DECLARED,
        manifest=tmp_path / "t.csv",
        options=options,
    )
    np.testing.assert_array_equal(open_store(tmp_path / "s").vector("y"), vectors(3)[1])
    (tmp_path / "t.csv").write_text("image_id\nz\n")
    with pytest.raises(DataError, match="`in_order` needs a row for each vector; found 1 rows and 3 vectors"):
        import_vectors(
            tmp_path / "f.safetensors",
            tmp_path / "o",
            declare=DECLARED,
            manifest=tmp_path / "t.csv",
            options=options,
        )


def test_a_file_without_ids_is_not_taken_for_a_slide_in_silence(tmp_path):
    np.save(tmp_path / "f.npy", vectors(3))
    with pytest.raises(
        UsageError, match="`id_column` must name the array or column with the ids of its 3 vectors"
    ):
        import_vectors(tmp_path / "f.npy", tmp_path / "s", declare=DECLARED)
    (tmp_path / "t.csv").write_text("image_id\nz\ny\nx\n")
    asked = {"declare": DECLARED, "manifest": tmp_path / "t.csv"}
    import_vectors(tmp_path / "f.npy", tmp_path / "s", **asked, options=ImportOptions(in_order=True))
    np.testing.assert_array_equal(open_store(tmp_path / "s").vector("x"), vectors(3)[2])
    (tmp_path / "bags").mkdir()
    (tmp_path / "f.npy").rename(tmp_path / "bags" / "S1.npy")
    assert import_vectors(tmp_path / "bags", tmp_path / "b", declare=DECLARED).slides == 1
    assert open_store(tmp_path / "b").image_ids.tolist() == ["S1/0000", "S1/0001", "S1/0002"]


def test_a_mapped_column_must_be_there(tmp_path):
    write_npz(tmp_path / "f.npz", list("ab"), vectors(2))
    (tmp_path / "t.csv").write_text("image_id,Patient\na,P1\nb,P2\n")
    options = ImportOptions(id_column="id", columns={"patient_id": "Patent"})
    with pytest.raises(DataError, match=r"patient_id is to be the column 'Patent'.* Did you mean 'Patient'"):
        import_vectors(
            tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, manifest=tmp_path / "t.csv", options=options
        )


def test_an_id_that_stands_twice_is_refused(tmp_path):
    write_npz(tmp_path / "f.npz", list("abca"), vectors(4))
    with pytest.raises(DataError, match="ids must differ; 1 stand more than once: 'a'"):
        import_vectors(tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, options=BY_ID)
    write_npz(tmp_path / "f.npz", list("ab"), vectors(2))
    (tmp_path / "t.csv").write_text("image_id\na\nb\na\n")
    with pytest.raises(DataError, match=r"line 4: image_id 'a' stands on line 2 already"):
        import_vectors(
            tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, manifest=tmp_path / "t.csv", options=BY_ID
        )


def test_vectors_that_cannot_be_kept_are_failed_rows(tmp_path):
    found = vectors(5)
    found[1, 2], found[3, 0], found[4] = np.nan, np.inf, 0
    write_npz(tmp_path / "f.npz", list("abcde"), found)
    summary = import_vectors(tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, options=BY_ID)
    assert (summary.valid, dict(summary.failed), summary.zero) == (3, {"non-finite": 2}, 1)
    store = open_store(tmp_path / "s")
    assert store.embeddings().image_ids.tolist() == ["a", "c", "e"]
    with pytest.raises(DataError, match="the query's vector is zero"):
        search(store, "e")
    assert {neighbor.image_id for neighbor in search(store, "a")} == {"c"}


def test_importing_again_adds_what_is_new_and_refuses_what_is_different(tmp_path):
    ids, found = list("abcdef"), vectors(6)
    write_npz(tmp_path / "f.npz", ids[:4], found[:4])
    import_vectors(tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, options=BY_ID)
    before = store_bytes(tmp_path / "s")
    summary = import_vectors(tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, options=BY_ID)
    assert (summary.valid, summary.known) == (4, 4)
    assert store_bytes(tmp_path / "s") == before
    write_npz(tmp_path / "f.npz", ids, found)
    summary = import_vectors(tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, options=BY_ID)
    assert (summary.images, summary.valid, summary.known) == (6, 6, 4)
    np.testing.assert_array_equal(open_store(tmp_path / "s").select(ids).vectors, found)
    found[1] += 1e-6
    write_npz(tmp_path / "f.npz", ids, found)
    with pytest.raises(DataError, match="has other vectors of 1 images than the features: 'b'"):
        import_vectors(tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, options=BY_ID)


def test_a_table_that_was_changed_is_not_taken_in_silence(tmp_path):
    write_npz(tmp_path / "f.npz", list("ab"), vectors(2))
    table = tmp_path / "t.csv"
    asked = {"declare": DECLARED, "manifest": table, "options": BY_ID}
    table.write_text("image_id,patient_id,age\na,P1,50\nb,P2,\n")
    for _ in range(2):
        import_vectors(tmp_path / "f.npz", tmp_path / "s", **asked)
    table.write_text("image_id,patient_id,age\na,P1,50\nb,P3,\n")
    with pytest.raises(DataError, match=r"something else of 1 images than .* \(patient_id\)"):
        import_vectors(tmp_path / "f.npz", tmp_path / "s", **asked)


def _import(folder, failpoint=""):
    if failpoint:
        os.environ[FAILPOINT_VARIABLE] = failpoint
    options = ImportOptions(id_column="id", chunk_rows=3)
    import_vectors(folder / "f.npz", folder / "s", declare=DECLARED, options=options)


@pytest.mark.parametrize(
    "failpoint",
    [
        "store.renamed",
        "manifest.written",
        "part.durable",
        "vectors.written:2",
        "content.renamed:3",
        "receipt.fsynced:2",
        "receipt.renamed:4",
    ],
)
def test_an_import_that_is_killed_is_continued_to_the_same_bytes(tmp_path, failpoint):
    ids, found = [f"i{row}" for row in range(20)], vectors(20)
    write_npz(tmp_path / "f.npz", ids, found)
    child = multiprocessing.get_context("spawn").Process(target=_import, args=(tmp_path, failpoint))
    child.start()
    child.join(60)
    assert child.exitcode == FAILPOINT_EXIT_CODE
    _import(tmp_path)
    assert not verify_store(tmp_path / "s").findings
    np.testing.assert_array_equal(open_store(tmp_path / "s").select(ids).vectors, found)
    assert not list((tmp_path / "s").rglob("*.tmp"))


def test_computed_and_imported_vectors_never_mix(tmp_path):
    write_npz(tmp_path / "f.npz", list("ab"), vectors(2, dim=4))
    make_store(tmp_path / "computed")
    with pytest.raises(IdentityMismatch, match="holds vectors that were computed by 'mean'; imported ones"):
        import_vectors(tmp_path / "f.npz", tmp_path / "computed", declare=DECLARED, options=BY_ID)
    import_vectors(tmp_path / "f.npz", tmp_path / "s", declare=DECLARED, options=BY_ID)
    with pytest.raises(IdentityMismatch, match=r"declared\.patch_px: '256' there, '512' asked"):
        import_vectors(
            tmp_path / "f.npz", tmp_path / "s", declare=DECLARED | {"patch_px": "512"}, options=BY_ID
        )
    pictures = collection_of(tmp_path / "pictures", 2)
    write_pictures(tmp_path / "pictures", range(2))
    words = "holds vectors that were imported and are declared, not computed, to be of 'uni2'"
    for encoder in (MeanEncoder(), "hog"):
        with pytest.raises(IdentityMismatch, match=words):
            extract(pictures, tmp_path / "s", encoder)
    with pytest.raises(IdentityMismatch, match=words):
        search(tmp_path / "s", tmp_path / "pictures" / "image0.png")


def test_views_and_exports_work_on_what_was_imported(tmp_path):
    write_slides(tmp_path / "slides", [3, 4, 5])
    import_vectors(tmp_path / "slides", tmp_path / "s", declare=DECLARED)
    labels = pa.table({"unit_id": ["S0", "S1", "S2"], "tumour": ["no", "yes", "no"]})
    write_task(tmp_path / "s", Task("tumour", "study", ("tumour",), ("no", "yes"), labels))
    view = load_view(tmp_path / "s", "tumour")
    assert view.X.shape == (12, 8)
    assert view.y[:, 0].tolist() == [0, 1, 0]
    export_store(tmp_path / "s", tmp_path / "out.parquet")
    again = ImportOptions(id_column="image_id")
    import_vectors(
        tmp_path / "out.parquet",
        tmp_path / "again",
        declare=DECLARED,
        manifest=tmp_path / "out.parquet",
        options=again,
    )
    first, second = open_store(tmp_path / "s"), open_store(tmp_path / "again")
    np.testing.assert_array_equal(first.embeddings().vectors, second.embeddings().vectors)
    for name in ("study_id", "coords_x"):
        assert first.table.column(name).to_pylist() == second.table.column(name).to_pylist()


def test_a_declaration_names_an_encoder():
    assert parse_declaration(["encoder=a, x=1", "y==2"]) == {"encoder": "a", "x": "1", "y": "=2"}
    identity = declared_identity({"encoder": "a", "revision": "3", "x": "1"}, dim=2)
    assert (identity.revision, identity.weights_sha256, identity.pooling) == ("3", "unknown", "unknown")
    assert json.loads(json.dumps(identity.to_json()))["declared"] == {
        "encoder": "a",
        "revision": "3",
        "x": "1",
    }
    for wrong, words in ((["encoder"], "takes NAME=VALUE"), (["a=1,a=2"], "says 'a' twice")):
        with pytest.raises(UsageError, match=words):
            parse_declaration(wrong)
    with pytest.raises(UsageError, match="must name the encoder"):
        declared_identity({"x": "1"}, dim=2)


def test_columns_of_a_parquet_table_of_features(tmp_path):
    found = vectors(6, dim=12)
    table = pa.table(
        {"id": [f"i{row}" for row in range(6)], "age": [1.0] * 6}
        | {f"f{at}": found[:, at] for at in sorted(range(12), key=str)}
    )
    pq.write_table(table, tmp_path / "f.parquet")
    import_vectors(tmp_path / "f.parquet", tmp_path / "s", declare=DECLARED, options=BY_ID)
    np.testing.assert_array_equal(open_store(tmp_path / "s").embeddings().vectors, found)
