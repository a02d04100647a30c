"""How slices are weighted, by words and by times."""

import pyarrow as pa
import pytest

from embedstore.crops.weightings import weighting_of, weightings


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("Sagittal T1", "T1"),
        ("Sagittal T2/STIR", "T2"),
        ("Axial T2", "T2"),
        ("t1_tse_sag", "T1"),
        ("SAG STIR", "T2"),
        ("ax T2w FSE", "T2"),
        ("T1 and T2", ""),
        ("ST100 localizer", ""),
        ("post1", ""),
        ("stirred", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_words_say_the_weighting(words, wanted):
    assert weighting_of(words, None, None) == wanted


@pytest.mark.parametrize(
    ("echo_ms", "repetition_ms", "wanted"),
    [
        (9.8, 550.0, "T1"),
        (20.0, 2200.0, "T1"),  # FLAIR
        (98.0, 3500.0, "T2"),
        (60.0, None, "T2"),
        (45.0, 4000.0, "T2"),  # STIR
        (30.0, 3000.0, ""),  # proton density
        (45.0, 900.0, ""),
        (None, 500.0, ""),
        (0.0, 500.0, ""),
        (float("nan"), 500.0, ""),
    ],
)
def test_times_say_it_where_words_do_not(echo_ms, repetition_ms, wanted):
    assert weighting_of("Sagittal", echo_ms, repetition_ms) == wanted


def test_words_come_before_times():
    table = pa.table({"series_description": ["Sagittal T1", None, "x"], "echo_time_ms": [98.0, 98.0, None]})
    assert weightings(table).tolist() == ["T1", "T2", ""]
    assert weightings(pa.table({"image_id": ["a"]})).tolist() == [""]
