"""Pictures are read again from a page that has them, whatever a unit is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from heads.reporting.page import render_report
from heads.reporting.pictures import pictures_on_page
from heads.runs.confident_errors import confident_errors
from heads.runs.run_files import save_run
from tests.views import make_view, probed


def test_what_a_page_shows_is_found_again(tmp_path: Path) -> None:
    view = make_view()
    names = np.array([f'a "b" <c> & {row}' for row in range(len(view.unit_ids))])
    view = replace(view, unit_ids=names)
    run = save_run(tmp_path / "run", probed(view, draws=5))
    units = [error.unit_id for error in confident_errors(run)]
    pictures = {unit: bytes([index, 255, 0]) * 20 for index, unit in enumerate(units)}
    page = tmp_path / "page.html"
    page.write_text(render_report([run], thumbnails=pictures))
    assert len(pictures) > 3
    assert pictures_on_page(page) == pictures


def test_where_there_is_no_page_there_are_no_pictures(tmp_path: Path) -> None:
    assert pictures_on_page(tmp_path / "none.html") == {}
    (tmp_path / "other.html").write_bytes(b"\xff\xfe<img>")
    assert pictures_on_page(tmp_path / "other.html") == {}
    (tmp_path / "broken.html").write_text('<img src="data:image/jpeg;base64,AAA" alt="an image of x">')
    assert pictures_on_page(tmp_path / "broken.html") == {}
