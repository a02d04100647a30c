"""CSV and its relatives as programs write them: separators, encodings, quotes, ends of lines."""

import pytest

from embedstore.errors import DataError
from embedstore.tables.delimited import read_delimited

TEXT = 'path,name\nå.png,"Ü, ""x"""\nb.png,\n'
CELLS = {"path": ["å.png", "b.png"], "name": ['Ü, "x"', ""]}


def read(folder, content, name="t.csv"):
    path = folder / name
    path.write_bytes(content)
    found = read_delimited(path)
    return dict(zip(found.header, [column.to_pylist() for column in found.columns], strict=True)), found


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("utf-8", ()),
        ("utf-8-sig", ()),
        ("utf-16", ("UTF-16 text",)),
        ("utf-16-le", ("UTF-16 text",)),
        ("utf-16-be", ("UTF-16 text",)),
        ("utf-32", ("UTF-32 text",)),
        ("cp1252", ("Windows-1252 text",)),
    ],
)
def test_the_encoding_is_found_out_and_said(tmp_path, encoding, words):
    cells, found = read(tmp_path, TEXT.encode(encoding))
    assert cells == CELLS
    assert found.words == words


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_the_separator_is_found_out_and_said(tmp_path, separator, word):
    text = separator.join(["path", "size"]) + "\n" + separator.join(["a,b.png", "1,5"]) + "\n"
    cells, found = read(tmp_path, text.encode())
    assert cells == {"path": ["a,b.png"], "size": ["1,5"]}
    assert found.words == (f"separated by {word}",)


def test_another_separator_than_the_ending_says_is_found(tmp_path):
    cells, _ = read(tmp_path, b"path;n\na.png;1,5\nb.png;2,5\n", "t.tsv")
    assert cells == {"path": ["a.png", "b.png"], "n": ["1,5", "2,5"]}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n", "\n\n"])
def test_lines_end_as_any_system_ends_them(tmp_path, end):
    cells, _ = read(tmp_path, end.join(["path,n", "a.png,1", "b.png,2"]).encode())
    assert cells == {"path": ["a.png", "b.png"], "n": ["1", "2"]}


def test_excel_s_line_that_names_the_separator_is_no_header_and_lines_keep_their_numbers(tmp_path):
    cells, found = read(tmp_path, b'sep=;\r\npath;n\r\n"a\r\nb";1\r\nc;2\r\n')
    assert cells == {"path": ["a\r\nb", "c"], "n": ["1", "2"]}
    assert found.place(1) == "line 5"


def test_excel_s_unicode_text_is_read(tmp_path):
    cells, found = read(tmp_path, "\ufeffpath\tn\r\né\t1\r\n".encode("utf-16"), "t.txt")
    assert cells == {"path": ["é"], "n": ["1"]}
    assert found.words == ("UTF-16 text", "separated by tabs")


def test_a_field_may_be_longer_than_the_csv_module_allows_by_default(tmp_path):
    cells, _ = read(tmp_path, b"path,note\na.png," + b"x" * 3_000_000 + b"\n")
    assert len(cells["note"][0]) == 3_000_000


def test_blanks_around_quotes_belong_to_nobody(tmp_path):
    cells, _ = read(tmp_path, b'"path" , "n"\n"a,b.png" , "1"\n')
    assert [name.strip() for name in cells] == ["path", "n"]
    assert [column[0].strip() for column in cells.values()] == ["a,b.png", "1"]


def test_row_numbers_that_the_header_does_not_name_are_left_out_as_r_writes_them(tmp_path):
    cells, found = read(tmp_path, b'path,n\n"1",a.png,x\n"2",b.png,y\n')
    assert cells == {"path": ["a.png", "b.png"], "n": ["x", "y"]}
    assert "row numbers" in found.words[0]


def test_empty_cells_behind_the_last_column_are_left_out(tmp_path):
    cells, found = read(tmp_path, b"path,n\na.png,x,\nb.png,y,,\n")
    assert cells == {"path": ["a.png", "b.png"], "n": ["x", "y"]}
    assert found.words == ("2 rows with empty cells behind the last column",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,n\na.png,x,y\n", r"line 2: 2 columns expected \(path, n\); found 3"),
        (b"path,n\na.png,x\nb.png\n", r"line 3: 2 columns expected"),
        (b'path,n\n"a.png,x\nb.png,y\n', "cannot be read as csv"),
        ("path,n\né,x\n".encode() + b"\xff,y\n", "line 3: byte 0xff is not UTF-8, while other letters"),
        (b"path,n\n\x81,x\n", "neither UTF-8 nor Windows-1252"),
        (b"PK\x03\x04rest", "is a spreadsheet or an archive"),
        (b"\n\n", "the table is empty"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)
