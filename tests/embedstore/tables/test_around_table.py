"""Titles, comments, rulers and totals around a table are no rows of it, and lines keep their numbers."""

import pytest

from embedstore.errors import DataError
from embedstore.tables.delimited import read_delimited
from embedstore.tables.remarks import describe_remarks
from embedstore.tables.table_file import read_rows

CELLS = {"path": ["1.png", "2.png"], "label": ["no", "yes"]}
PLAIN = "path,label\n1.png,no\n2.png,yes\n"


def read(folder, text, name="t.csv"):
    (folder / name).write_text(text)
    return read_rows(folder / name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            " path  | label \n-------+-------\n 1.png | no\n 2.png | yes\n(2 rows)\n",
            "2 rows beside the table left out ('-------+-------', '(2 rows)')",
        ),
        (
            "+---+---+\n| path | label |\n+---+---+\n| 1.png | no |\n| 2.png | yes |\n+---+---+\n2 rows in set (0 s)\n",
            "1 line before the header left out ('+---+---+')",
        ),
        (
            "| path | label |\n|:-----|---|\n| 1.png | no |\n| 2.png | yes |\n",
            "a ruler below the header left out",
        ),
        (
            "path,label\n----,-----\n1.png,no\n2.png,yes\n\n(2 rows affected)\n",
            "1 row beside the table left out ('(2 rows affected)')",
        ),
        (
            f"# from REDCap, 2026\n#\n{PLAIN}# end\n",
            "2 lines before the header left out ('# from REDCap, 2026', '#')",
        ),
        (f"Findings of 2026\n\n{PLAIN}", "1 line before the header left out ('Findings of 2026')"),
        (f"{PLAIN}Total,2\n", "a last row of totals left out (Total 2)"),
    ],
)
def test_what_stands_around_a_table_is_left_out_and_said(tmp_path, text, said):
    rows = read(tmp_path, text, "t.txt")
    assert dict(rows.columns) == CELLS
    assert said in describe_remarks(rows.remarks)["table"]


def test_a_header_behind_a_number_sign_is_the_header(tmp_path):
    assert dict(read(tmp_path, f"#{PLAIN}").columns) == {"#path": CELLS["path"], "label": CELLS["label"]}
    # No cell of the next line is a number or a file: that is the header, and this a remark of two cells.
    assert dict(read(tmp_path, f"#from REDCap,2026\n{PLAIN}").columns) == CELLS


def test_cells_that_begin_with_a_number_sign_are_cells(tmp_path):
    assert read(tmp_path, "path,n\n#1.png,1\n#2.png,2\n").columns["path"] == ["#1.png", "#2.png"]


def test_a_column_of_dashes_for_nothing_is_no_ruler(tmp_path):
    rows = read(tmp_path, "path,n\n1.png,---\n2.png,---\n")
    assert rows.columns["path"] == ["1.png", "2.png"]


def test_lines_keep_their_numbers_behind_what_is_left_out(tmp_path):
    path = tmp_path / "t.csv"
    #                1      2      3          4        5      6      7      8
    path.write_text("# a\n\npath,n\n---,---\n1.png,1\n# b\n2.png,2\n3.png,3\n")
    found = read_delimited(path)
    assert [column.to_pylist() for column in found.columns] == [["1.png", "2.png", "3.png"], ["1", "2", "3"]]
    assert [found.place(row) for row in range(3)] == ["line 5", "line 7", "line 8"]


def test_a_short_row_that_is_no_remark_is_refused(tmp_path):
    with pytest.raises(DataError, match="line 3: 3 columns expected"):
        read(tmp_path, "path,label,n\n1.png,no,1\n2.png,yes\n")
