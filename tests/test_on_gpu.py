"""The script of everything that needs a GPU: its small run on a CPU, its file of rows, its tables."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = next(folder for folder in Path(__file__).parents if (folder / "setup.cfg").is_file())
SCRIPT = ROOT / "benchmarks" / "on_gpu.py"
CARD = "NVIDIA Test 100"

# What a picture costs the tiny tower, by hand: width 64, inner width 128, 16 tokens of 14 x 14 x 3, 2 blocks.
_PATCHES = 2 * 16 * (14 * 14 * 3) * 64
_BLOCK = 4 * 2 * 16 * 64 * 64 + 2 * 2 * 16 * 16 * 64 + 2 * 2 * 16 * 64 * 128
TINY_FLOPS = _PATCHES + 2 * _BLOCK


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), "--small", "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Rows of a whole small run, and what it ended with."""
    out = tmp_path_factory.mktemp("on_gpu") / "rows.jsonl"
    process = start(out)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return printed, [json.loads(line) for line in out.read_text().splitlines()], out


@pytest.mark.slow
def test_a_small_run_measures_every_section_and_calls_its_device_by_name(small):
    printed, rows, _ = small
    assert [json.loads(line) for line in printed.splitlines()] == rows
    order = list(dict.fromkeys(row["section"] for row in rows))
    sections = [
        "machine",
        "tests",
        "ceiling",
        "layers",
        "towers",
        "end to end",
        "heads",
        "fine-tuning",
        "sweep",
        "fp8",
        "run",
    ]
    assert order == sections
    assert {row["device"] for row in rows} == {"cpu"}
    assert rows[-1]["note"] == "finished"
    assert [row["what"] for row in rows if row["section"] == "run"] == ["whole run"]


@pytest.mark.slow
def test_speeds_are_operations_and_shares_of_the_ceiling_of_the_same_run(small):
    _, rows, _ = small
    ceiling = max(
        row["TFLOP/s"] for row in rows if row["section"] == "ceiling" and row["dtype"] == "bfloat16"
    )
    (headless,) = (row for row in rows if row["section"] == "towers" and row["tower"] == "tiny, without head")
    assert headless["TFLOP/s"] * 1e12 == pytest.approx(headless["images/s"] * TINY_FLOPS)
    assert headless["of ceiling"] == pytest.approx(headless["TFLOP/s"] / ceiling)
    assert headless["promise"] == "none on a CPU"


@pytest.mark.slow
def test_a_small_run_goes_from_files_to_committed_rows_with_both_encoders(small):
    _, rows, _ = small
    ends = [row for row in rows if row["section"] == "end to end"]
    assert [row["tower"] for row in ends] == ["tiny, with head", "tiny, without head"]
    for row in ends:
        assert (row["images"], row["note"], row["promise"]) == (6, "", "none on a CPU")
        assert row["of bare"] == pytest.approx(row["images/s"] / row["bare images/s"])


@pytest.mark.slow
def test_a_small_run_fine_tunes_with_and_without_a_cache_and_by_adapters(small):
    _, rows, _ = small
    found = {row["what"]: row for row in rows if row["section"] == "fine-tuning"}
    assert list(found) == ["top 1", "top 2", "LoRA r 16, all blocks"]  # the tiny tower has two blocks
    for row in found.values():
        assert row["images/s"] > 0
        assert row["note"] == ""
    cached = found["top 1"]
    assert cached["bytes an image"] == 2 * 16 * 64
    assert cached["times faster"] == pytest.approx(cached["images/s, cached"] / cached["images/s"])
    assert cached["read (GB/s)"] == pytest.approx(cached["images/s, cached"] * 2048 / 1e9)
    assert found["top 2"]["promise"] == "none on a CPU"


@pytest.mark.slow
def test_what_does_not_run_here_says_why(small):
    _, rows, _ = small
    swept = {
        (row["execution"], row["attention"], row["pictures in a pass"]): row
        for row in rows
        if row["section"] == "sweep" and row["tower"] == "tiny, with head"
    }
    assert "does not run: No viable backend" in swept["eager", "cudnn", 1]["note"]
    assert (
        swept["graph", "auto", 1]["note"] == "does not run: execution 'graph' needs a CUDA device; found cpu"
    )
    assert swept["compile", "auto", 1]["note"].startswith("skipped: compiling")
    assert swept["eager", "math", 1]["images/s"] > 0
    assert {rows for *_, rows in swept} == {1, 2, 4, 8}


@pytest.mark.slow
def test_rows_of_a_cpu_are_refused_for_the_page(small, tmp_path):
    _, _, out = small
    page = tmp_path / "page.md"
    page.write_text("<!-- on_gpu: begin -->\nold\n<!-- on_gpu: end -->\n")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--render", str(out), "--into", str(page)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "only rows of a GPU stand in this table; the file's device is 'cpu'" in done.stderr
    assert "old" in page.read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are looked up in /proc")
def test_a_killed_run_leaves_its_rows_and_no_process(tmp_path):
    out = tmp_path / "rows.jsonl"
    process = start(out, "--sections", "towers,sweep")
    try:
        wait_until(lambda: out.exists() and out.read_text().count("\n") >= 2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    from gpu_checks.rows import read_rows

    rows = read_rows(out)
    assert [row["section"] for row in rows[:2]] == ["machine", "ceiling"]
    assert rows[-1]["section"] != "run"
    wait_until(lambda: not processes_with(str(out)))


def wait_until(condition, limit_s: float = 60):
    ends = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def processes_with(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if word in arguments:
            found.append(arguments)
    return found


def test_too_little_time_is_a_reason_to_skip(tmp_path):
    out = tmp_path / "rows.jsonl"
    process = start(out, "--sections", "heads", "--minutes", "0.05")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    (skipped, _) = (json.loads(line) for line in out.read_text().splitlines()[1:])
    assert (skipped["section"], skipped["what"]) == ("run", "heads")
    assert skipped["note"].startswith("skipped: needs 25 s, ")


def test_rows_of_two_runs_do_not_mix(tmp_path):
    out = tmp_path / "rows.jsonl"
    out.write_text("mine\n")
    process = start(out)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "--out must be a new file" in errors
    assert out.read_text() == "mine\n"


def test_a_section_that_hangs_is_cut_and_one_that_fails_is_named(tmp_path):
    import on_gpu
    from gpu_checks.rows import RowFile

    file = RowFile(tmp_path / "rows.jsonl")
    assert on_gpu._run_apart("sweep", file, 0.3, small=True) == "cut after 0.3 s"
    assert on_gpu._run_apart("no-such", file, 60, small=True).startswith(
        "failed with 1: --sections must be of tests"
    )


# -- rows ------------------------------------------------------------------------------------------------


def test_a_line_that_was_cut_is_left_out_and_a_damaged_one_is_named(tmp_path):
    from gpu_checks.rows import RowFile, read_rows

    path = tmp_path / "rows.jsonl"
    RowFile(path).append({"section": "tests", "device": "cpu", "passed": 3})
    with path.open("a") as file:
        file.write('{"section": "tow')
    assert read_rows(path) == [{"section": "tests", "device": "cpu", "passed": 3}]
    RowFile(path).append({"section": "run", "device": "cpu"})
    assert [row["section"] for row in read_rows(path)] == ["tests", "run"]
    path.write_text('{"section": "tests"}\n')
    with pytest.raises(ValueError, match=r"line 1 of .*rows.jsonl must be a row with 'section' and 'device'"):
        read_rows(path)


def test_a_number_that_is_none_is_no_row(tmp_path):
    from gpu_checks.rows import RowFile

    file = RowFile(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        file.append({"section": "fp8", "device": "cpu", "cosine": float("nan")})
    assert not file.path.exists()


def test_the_ceiling_is_the_fastest_product_of_its_arithmetic():
    from gpu_checks.rows import ceiling_flops

    def product(section, dtype, tflops):
        return {"section": section, "device": CARD, "dtype": dtype, "TFLOP/s": tflops}

    rows = [
        {"section": "machine", "device": CARD},
        product("ceiling", "bfloat16", 600.0),
        product("ceiling", "bfloat16", 700.0),
        product("ceiling", "bfloat16", None),
        product("layers", "bfloat16", 750.0),
        product("ceiling", "float8_e4m3fn", 1300.0),
    ]
    assert ceiling_flops(rows, "bfloat16") == 700e12
    assert ceiling_flops(rows[:1], "bfloat16") is None


# -- results that are errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "out of memory"),
        (RuntimeError("No available kernel.\nAborting execution."), "does not run: No available kernel."),
    ],
)
def test_memory_and_missing_kernels_are_results(error, note):
    from gpu_checks.plan import attempted

    def measure():
        raise error

    row = attempted(measure, {"tower": "x", "images/s": None, "note": ""}, torch.device("cpu"))
    assert row == {"tower": "x", "images/s": None, "note": note}


@pytest.mark.parametrize(
    "error", [torch.AcceleratorError("an illegal memory access"), TypeError("a mistake")]
)
def test_a_lost_device_and_a_mistake_are_not(error):
    from gpu_checks.plan import attempted

    def measure():
        raise error

    with pytest.raises(type(error)):
        attempted(measure, {}, torch.device("cpu"))


def test_a_promise_is_kept_from_its_bar_on(tmp_path):
    from gpu_checks.plan import Plan
    from gpu_checks.rows import RowFile

    def verdict(device, found):
        plan = Plan(device=torch.device(device), small=True, ends=0, rows=RowFile(tmp_path / "rows"))
        return plan.verdict(found, 0.6)

    assert verdict("cuda:0", 0.6) == ">= 0.60: kept"
    assert verdict("cuda:0", 0.5999) == ">= 0.60: not kept"
    assert verdict("cuda:0", None) == ">= 0.60: not measured"
    assert verdict("cpu", 0.9) == "none on a CPU"


def test_outcomes_are_counted_in_a_whole_report_and_in_a_cut_one():
    from gpu_checks.suite import outcomes

    report = (
        "collecting ... collected 9 items / 4 deselected / 5 selected\n\n"
        "tests/test_a.py::test_one[pad-(512, 400)] PASSED [ 20%]\n"
        "tests/test_a.py::test_two FAILED [ 40%]\n"
        "tests/test_a.py::test_three SKIPPED (needs a CUDA device) [ 60%]\n"
        "tests/b/test_b.py::test_four ERROR [ 80%]\n"
    )
    end = "tests/b/test_b.py::test_five PASSED [100%]\nFAILED tests/test_a.py::test_two - it PASSED before\n"
    failed = ["tests/test_a.py::test_two", "tests/b/test_b.py::test_four"]
    cut, _ = outcomes(report + "tests/b/test_b.py::test_five ")
    whole, names = outcomes(report + end)
    assert cut == {"PASSED": 1, "FAILED": 1, "SKIPPED": 1, "ERROR": 1}
    assert whole == {"PASSED": 2, "FAILED": 1, "SKIPPED": 1, "ERROR": 1}
    assert names == failed


# -- fp8 -------------------------------------------------------------------------------------------------


def test_an_fp8_layer_is_as_close_as_eight_bits_are():
    from gpu_checks.fp8 import Fp8Linear, to_fp8

    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 64).to(torch.bfloat16)
    tokens = torch.randn(2, 16, 256).to(torch.bfloat16)
    exact = torch.nn.functional.linear(tokens.double(), linear.weight.double(), linear.bias.double()).detach()
    with torch.inference_mode():
        found = Fp8Linear(linear)(tokens)
    assert (found.shape, found.dtype) == ((2, 16, 64), torch.bfloat16)
    error = float(((found.double() - exact).norm() / exact.norm()).detach())
    # Three bits behind the point: each factor is off by at most 1/16, evenly spread, and errors add up in squares.
    assert 0.005 < error < 0.06
    small, scale = to_fp8(torch.tensor([[448.0, -224.0, 1.0]]) * 2)
    assert (float(scale), small.float().tolist()) == (2.0, [[448.0, -224.0, 1.0]])


def test_only_the_blocks_of_a_tower_get_fp8_layers():
    from gpu_checks.fp8 import Fp8Linear, with_fp8_layers
    from gpu_checks.towers import _SMALL, random_tower

    tower = with_fp8_layers(random_tower(_SMALL, torch.device("cpu")))
    replaced = [name for name, module in tower.named_modules() if isinstance(module, Fp8Linear)]
    # Queries, keys, values and output, and the network's two, in each of two blocks.
    assert len(replaced) == 2 * 6
    assert all(".layers." in name for name in replaced)


# -- tables ----------------------------------------------------------------------------------------------


def rows_of_a_card():
    return [
        {"section": "machine", "device": CARD, "what": "80 GB", "small": False},
        {"section": "run", "device": CARD, "what": "fp8", "note": "cut after 90 s"},
        {
            "section": "towers",
            "device": CARD,
            "tower": "T",
            "note": "a|b",
            "of ceiling": 0.61234,
            "images/s": 430.0,
        },
        {"section": "towers", "device": CARD, "tower": "U", "note": "", "of ceiling": None, "promise": "x"},
        {"section": "heads", "device": CARD, "head": "mlp", "fit (s)": 2.0},
        {"section": "heads", "device": "cpu", "head": "mlp", "fit (s)": 12.0, "card is faster by": 6.0},
    ]


def test_rows_of_a_card_become_tables():
    from gpu_checks.page import tables

    assert tables(rows_of_a_card()) == "\n".join(
        [
            f"{CARD} (80 GB)",
            "",
            "**Towers as an extraction runs them**",
            "",
            "| tower | of ceiling | images/s | promise | note |",
            "|---|---|---|---|---|",
            r"| T | 0.612 | 430.0 |  | a\|b |",
            "| U |  |  | x |  |",
            "",
            "**Heads**",
            "",
            "| device | head | fit (s) | card is faster by |",
            "|---|---|---|---|",
            f"| {CARD} | mlp | 2.000 |  |",
            "| cpu | mlp | 12.0 | 6.000 |",
            "",
            "**The run**",
            "",
            "| what | note |",
            "|---|---|",
            "| fp8 | cut after 90 s |",
        ]
    )


def test_a_row_of_another_device_is_refused():
    from gpu_checks.page import tables

    rows = rows_of_a_card()
    rows[2]["device"] = "cpu"
    with pytest.raises(ValueError, match=r"other devices' rows are among them: \['cpu'\]"):
        tables(rows)


def test_tables_go_between_the_marks_of_the_page(tmp_path):
    from gpu_checks.page import put_into

    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    before = page.read_text()
    put_into(page, "new")
    after = page.read_text()
    begin, end = "<!-- on_gpu: begin -->", "<!-- on_gpu: end -->"
    assert after.partition(begin)[0] == before.partition(begin)[0]
    assert after.partition(end)[2] == before.partition(end)[2]
    assert f"{begin}\nnew\n{end}" in after
    page.write_text("no marks")
    with pytest.raises(ValueError, match="must hold <!-- on_gpu: begin -->"):
        put_into(page, "new")


@pytest.mark.slow
def test_the_page_names_every_section_and_column_that_a_run_writes(small):
    text = (ROOT / "docs" / "benchmarks.md").read_text().partition("## GPU")[2].partition("\n## ")[0]
    _, rows, _ = small
    words = {row["section"] for row in rows} | {name for row in rows for name in row}
    assert {word for word in words if f"`{word}`" not in text} == set()
