"""What is wrong on the command line is refused before the data set is read."""

from __future__ import annotations

import pytest

from cli.main import run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "hgo"], "--encoder must be one of"),
        (["--shard", "5/4"], "--shard must be i/n"),
        (["--shard", "half"], "--shard must be i/n"),
        (["--preprocess", "squash"], "--preprocess must be one of"),
        (["--dataset", "mur"], "--dataset must be one of"),
    ],
)
def test_a_wrong_choice_is_refused_before_the_data_set_is_read(capsys, arguments, message):
    # The data set is missing, which only its reader would find.
    assert run(["extract", "--dataset", "mura", "--root", "gone", "--store", "s", *arguments]) == 2
    assert f"Error: {message}" in capsys.readouterr().err
