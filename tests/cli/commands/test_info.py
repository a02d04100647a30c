import json

from cli.main import run
from embedstore.store.writer import open_writer
from tests.stores import IDENTITY, TOKEN_IDENTITY, make_store, manifest_of


def test_further_arrays_are_shown_with_what_a_row_of_them_is(tmp_path, capsys):
    make_store(tmp_path / "s", identity=TOKEN_IDENTITY)
    assert run(["info", str(tmp_path / "s")]) == 0
    assert (
        "    array tokens: 2 x 3 per row (mean, first and last pixel of the upper and the lower half), float16, "
        "largest rounding error 0\n"
    ) in capsys.readouterr().out
    assert run(["info", str(tmp_path / "s"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parts"][0]["arrays"] == {
        "vectors": {
            "row_shape": [4],
            "dtype": "float16",
            "dimensions": ["feature"],
            "row": "vector, un-normalised",
            "rounding_error": 0.0,
        },
        "tokens": {
            "row_shape": [2, 3],
            "dtype": "float16",
            "dimensions": ["token", "token_feature"],
            "row": "mean, first and last pixel of the upper and the lower half",
            "rounding_error": 0.0,
        },
    }
    assert list(document["identity"]["arrays"]) == ["tokens"]


def test_a_store_of_vectors_alone_shows_no_further_array(tmp_path, capsys):
    make_store(tmp_path / "s")
    assert run(["info", str(tmp_path / "s")]) == 0
    assert "array" not in capsys.readouterr().out


def test_where_nothing_is_computed_there_is_no_rounding_error(tmp_path, capsys):
    with open_writer(tmp_path / "s", IDENTITY, say=print) as writer:
        writer.plan_part(manifest_of(3), dataset="t", data_root="r", chunk_rows=3, dtype="float16")
    assert run(["info", str(tmp_path / "s")]) == 0
    assert "0 of 1 chunk finished, largest rounding error -\n" in capsys.readouterr().out
