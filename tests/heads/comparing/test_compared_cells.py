"""Subgroups of compared runs: by hand, and refused where a class has too few patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from heads.comparing.comparison_table import comparison_table
from heads.runs.run import Run
from tests.heads.comparing.encoder_runs import of_units


def anatomy_of(run: Run) -> dict[str, str]:
    assert run.units is not None
    return {row["unit_id"]: row["subgroup_anatomy"] for row in run.units.to_pylist()}


def test_a_cell_holds_each_runs_metric_and_its_difference_on_that_cells_units(
    sharp: Run, blurred: Run
) -> None:
    table = comparison_table([sharp, blurred], draws=40, subgroups=["anatomy"])
    assert [cell.cell for cell in table.cells] == ["XR_HAND", "XR_WRIST"]
    cells = anatomy_of(sharp)
    for cell in table.cells:
        values = []
        for run in (sharp, blurred):
            rows = [
                row
                for row in run.predictions.to_pylist()
                if row["role"] == "evaluation" and cells[row["unit_id"]] == cell.cell
            ]
            truth = [row["label"] == "abnormal" for row in rows]
            values.append(roc_auc_score(truth, [row["prob_abnormal"] for row in rows]))
            assert (cell.units, cell.patients) == (len(rows), len({row["patient_id"] for row in rows}))
        assert [entry.value for entry in cell.values] == pytest.approx(values, abs=1e-12)
        assert cell.differences[0] is None
        difference = cell.differences[1]
        assert difference is not None
        assert difference.value == pytest.approx(values[1] - values[0], abs=1e-12)
        assert difference.low < difference.value < difference.high


def test_a_cell_with_fewer_than_ten_patients_of_a_class_has_no_number_and_says_of_which(
    sharp: Run, blurred: Run
) -> None:
    cells, rows = anatomy_of(sharp), sharp.predictions.to_pylist()
    hands = [row for row in rows if row["role"] == "evaluation" and cells[row["unit_id"]] == "XR_HAND"]
    abnormal = [row for row in hands if row["label"] == "abnormal"]
    nine = sorted({row["patient_id"] for row in abnormal})[:9]
    dropped = {row["unit_id"] for row in abnormal if row["patient_id"] not in nine}
    kept = set(sharp.evaluated.unit_ids.tolist()) - dropped
    table = comparison_table([of_units(sharp, kept), blurred], draws=40, subgroups=["anatomy"])
    hand, wrist = table.cells
    assert (hand.refused, hand.values) == ("9 patients of 'abnormal'", ())
    assert wrist.refused == ""
    assert hand.to_json(["a", "b"])["values"] == {}


def test_bands_are_cut_on_all_units_of_the_baseline_and_not_on_the_common_ones(
    sharp: Run, blurred: Run
) -> None:
    assert sharp.units is not None
    ages = {row["unit_id"]: int(row["subgroup_age"]) for row in sharp.units.to_pylist()}
    young = [unit for unit in sharp.evaluated.unit_ids.tolist() if ages[unit] < 60]
    # Eight different ages would be eight cells if bands were cut anew.
    few = sorted({ages[unit] for unit in young})[:8]
    kept = {unit for unit in young if ages[unit] in few}
    table = comparison_table([of_units(sharp, kept), blurred], draws=40, subgroups=["age"])
    names = {"18 to 39": (18, 40), "40 to 59": (40, 60)}
    assert {cell.cell for cell in table.cells} <= names.keys()
    for cell in table.cells:
        low, high = names[cell.cell]
        assert cell.units == np.sum([low <= ages[unit] < high for unit in kept])
