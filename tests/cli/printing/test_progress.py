"""The bar counts images with every batch, and plain lines end once."""

from __future__ import annotations

import io

from cli.printing import progress
from embedstore.extraction.extract import ExtractOptions, Observer, extract
from tests.pictures import collection_of, write_pictures
from tests.stores import MeanEncoder


def test_a_chunk_counts_while_it_is_under_way(tmp_path):
    write_pictures(tmp_path, range(20))
    (tmp_path / "image3.png").unlink()
    states = []
    summary = extract(
        collection_of(tmp_path, 20),
        tmp_path / "s.store",
        MeanEncoder(),
        options=ExtractOptions(batch_size=5, chunk_rows=16, workers=1),
        observer=Observer(progress=states.append),
    )
    assert summary.valid == 19
    # A chunk of 16, the fourth of which is refused alone while the others go in batches of 5; and one of 4.
    assert list(dict.fromkeys(state.done for state in states)) == [1, 6, 11, 16, 20]
    assert {state.done for state in states if state.chunks_done == 0} >= {1, 6, 11, 16}
    assert {state.total for state in states} == {20}
    assert states[-1].done == 20


def test_without_a_terminal_the_last_line_comes_once(monkeypatch):
    from embedstore.extraction.progress import Progress

    printed = io.StringIO()
    monkeypatch.setattr("sys.stderr", printed)
    with progress.shown_progress() as show:
        for done, chunks_done in ((4, 0), (8, 0), (8, 1)):
            show(
                Progress(
                    done=done, total=8, failed=0, chunks_done=chunks_done, chunks_total=1, images_per_s=2.0
                )
            )
    assert printed.getvalue() == "8 of 8 images, 2.0 images/s, 0:00 left, 0 failed\n"
