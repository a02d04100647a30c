"""From a store to a file of answers: what each line says, and the same file after any interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch

from embedstore.decoding.decode import DecodeLimits, SerialDecoder
from embedstore.errors import DataError, UsageError
from embedstore.generation import generate as module
from embedstore.generation.generate import generate_responses
from embedstore.generation.generation_options import Generated, GenerateOptions
from embedstore.generation.generative_model import Answer, Question
from embedstore.generation.model_files import open_model_files
from embedstore.generation.prompt import Prompt
from embedstore.images.preprocess import PreprocessSpec
from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.severity_codes import write_response
from embedstore.store.reader import open_store
from heads.lumbar.response_file import read_responses
from tests.embedstore.generation.test_adapter import weights, written

OPTIONS = GenerateOptions(max_new_tokens=4, dtype="float32", device="cpu", batch=2, prompt=Prompt("{count}"))
SLOTS = replace(OPTIONS, score_slots=True)


def generated(
    store: Path, model: Path, out: Path, options: GenerateOptions = OPTIONS, **further: Any
) -> list[Generated]:
    return list(generate_responses(store, str(model), out, options, **further))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(lumbar_store: Path, answering: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of all three studies with probabilities, written without an interruption."""
    path = tmp_path_factory.mktemp("whole") / "whole.jsonl"
    states = generated(lumbar_store, answering, path, SLOTS)
    assert [state.done for state in states] == [0, 2, 3]
    return path


def test_a_line_says_what_was_shown_what_was_written_and_by_what(
    whole: Path, lumbar_store: Path, answering: Path
) -> None:
    files = open_model_files(str(answering))
    store = open_store(lumbar_store)
    for line in lines(whole):
        assert line["study_id"] in set(store.table.column("study_id").to_pylist())
        assert len(line["images"]) == len(line["views"]) == 8
        assert all(image in store.row_of for image in line["images"])
        assert (line["finish"], line["tokens"]) == ("token limit", 4)
        assert line["settings"] == {
            "model": "tiny-it",
            "revision": "local",
            "model_sha256": files.sha256,
            "prompt_sha256": Prompt("{count}").sha256,
            "slices": "sagittal-t2=1,sagittal-t1=2,axial-t2=5",
            "size_px": 42,
            "mri_range": "percentile-1-99",
            "max_new_tokens": 4,
            "temperature": 0.0,
            "seed": 0,
            "score_slots": True,
            "dtype": "float32",
        }


def test_probabilities_stand_behind_the_file_that_is_compared(whole: Path) -> None:
    found = read_responses(whole)
    assert found.probabilities is not None
    written_down = np.array([[line["slot_probabilities"][name] for name in TARGETS] for line in lines(whole)])
    assert found.probabilities == pytest.approx(written_down, abs=1e-5)
    assert all(0 < line["least_code_mass"] < 1 for line in lines(whole))


class InThisProcess(SerialDecoder):
    """Decodes as the pool does, without starting processes for every test."""

    def __init__(self, spec: PreprocessSpec, *, workers: int, limits: DecodeLimits) -> None:
        super().__init__(spec, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _decoded_here(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no processes, once `whole` was decoded by them."""
    monkeypatch.setattr(module, "DecoderPool", InThisProcess)


class Scripted:
    """A model whose answers are given, and whose slots tell what they were asked after."""

    def __init__(self, answers: Sequence[str], most: int = 9, codes: list[np.ndarray] | None = None) -> None:
        self.answers, self.most, self.codes = iter(answers), most, [] if codes is None else codes
        self.device, self.layout = torch.device("cpu"), None
        self.files = type("Files", (), {"size_px": 42})

    def answer(self, questions: Sequence[Question], **options: Any) -> list[Answer]:
        if len(questions) > self.most:
            raise torch.OutOfMemoryError("no memory")
        return [Answer(text=next(self.answers), tokens=1, finish="end") for _ in questions]

    def slots(self, questions: Sequence[Question], classes: np.ndarray) -> Any:
        self.codes.append(classes)
        n = len(questions)
        shares = np.tile([0.5, 0.25, 0.25], (n, 25, 1))
        return type("Slots", (), {"probabilities": shares, "mass": np.ones((n, 25))})


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scripted], Scripted]:
    def use(model: Scripted) -> Scripted:
        monkeypatch.setattr(module, "GenerativeModel", lambda *given, **options: model)
        return model

    return use


def test_slots_are_read_after_the_answers_own_codes_and_after_n_where_it_has_none(
    scripted: Any, lumbar_store: Path, answering: Path, tmp_path: Path
) -> None:
    said = np.random.default_rng(0).integers(0, 3, 25)
    partly = write_response(said.tolist()).replace('"canal":"', '"canal":"?')
    model = scripted(Scripted([write_response(said.tolist()), "sorry", partly]))
    generated(lumbar_store, answering, tmp_path / "a.jsonl", SLOTS)
    own, none, rest = np.concatenate(model.codes)
    assert np.array_equal(own, said)
    assert not none.any()
    assert np.array_equal(rest, np.where(np.arange(25) < 5, 0, said))
    assert lines(tmp_path / "a.jsonl")[0]["slot_probabilities"][TARGETS[7]] == [0.5, 0.25, 0.25]


@pytest.mark.parametrize("cut", [0, 40, -1])
def test_a_run_that_was_killed_goes_on_to_the_same_file(
    cut: int, whole: Path, lumbar_store: Path, answering: Path, tmp_path: Path
) -> None:
    """After a whole batch, in the middle of a line of it, and behind its first line."""
    path = tmp_path / "a.jsonl"
    states = generate_responses(lumbar_store, str(answering), path, SLOTS)
    assert [next(states).done, next(states).done] == [0, 2]
    states.close()
    first = path.read_bytes().index(b"\n") + 1
    if cut:
        path.write_bytes(path.read_bytes()[: first + cut if cut > 0 else first])
    (start, *_, last) = generated(lumbar_store, answering, path, SLOTS)
    assert start.before == (1 if cut else 2)
    assert last.done == 3
    assert path.read_bytes() == whole.read_bytes()


def test_the_same_command_again_loads_no_model_and_further_studies_are_added(
    whole: Path, lumbar_store: Path, answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    generated(lumbar_store, answering, path, replace(SLOTS, limit=2))
    assert path.read_bytes() == b"".join(whole.read_bytes().splitlines(keepends=True)[:2])
    generated(lumbar_store, answering, path, SLOTS)
    assert path.read_bytes() == whole.read_bytes()
    monkeypatch.setattr(module, "GenerativeModel", None)
    (state,) = generated(lumbar_store, answering, path, SLOTS)
    assert (state.before, state.done, state.studies) == (3, 3, 3)


def test_an_answer_is_the_same_in_any_batch_and_order(
    whole: Path, lumbar_store: Path, answering: Path, tmp_path: Path
) -> None:
    expected = {line["study_id"]: line for line in lines(whole)}
    names = list(expected)
    generated(lumbar_store, answering, tmp_path / "a.jsonl", replace(SLOTS, batch=1, ids=names[2:]))
    (alone,) = lines(tmp_path / "a.jsonl")
    assert alone["response"] == expected[names[2]]["response"]
    for name in TARGETS:
        assert alone["slot_probabilities"][name] == pytest.approx(
            expected[names[2]]["slot_probabilities"][name], abs=1e-5
        )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed is 0 there and 1 now"),
        ({"prompt": Prompt("other")}, "prompt_sha256 is "),
        ({"images": "4"}, "slices is sagittal-t2=1,sagittal-t1=2,axial-t2=5 there and sagittal-t2=1"),
        ({"score_slots": False}, "score_slots is True there and False now"),
        ({"dtype": "bfloat16"}, "dtype is float32 there and bfloat16 now"),
    ],
)
def test_another_question_does_not_go_on_with_a_file(
    changed: dict[str, Any], named: str, whole: Path, lumbar_store: Path, answering: Path
) -> None:
    before = whole.read_bytes()
    with pytest.raises(UsageError, match=f"line 1, was written by other settings: {named}"):
        generated(lumbar_store, answering, whole, replace(SLOTS, **changed))
    assert whole.read_bytes() == before


def test_another_model_or_adapter_does_not_go_on_with_a_file(
    whole: Path, lumbar_store: Path, answering: Path, tmp_path: Path
) -> None:
    other = tmp_path / "tiny-it"
    shutil.copytree(answering, other)
    (other / "generation_config.json").write_text('{"eos_token_id": 1, "max_length": 9}')
    with pytest.raises(UsageError, match=r"settings: model_sha256 is .{12} there and .{12} now"):
        generated(lumbar_store, other, whole, SLOTS)
    adapter = written(tmp_path / "adapter", weights("model.language_model.layers.0.self_attn.q_proj"))
    with pytest.raises(UsageError, match="settings: adapter_sha256 is nothing there and "):
        generated(lumbar_store, answering, whole, replace(SLOTS, adapter=adapter))


def test_an_adapter_of_another_base_is_refused_and_one_without_an_end_is_told(
    lumbar_store: Path, answering: Path, tmp_path: Path
) -> None:
    # Its shapes are those of another model.
    adapter = written(
        tmp_path / "adapter",
        weights("model.language_model.layers.0.self_attn.q_proj"),
        base_model_name_or_path="google/medgemma-27b-it",
    )
    said: list[str] = []
    with pytest.raises(DataError, match="It belongs to another base"):
        generated(lumbar_store, answering, tmp_path / "a", replace(OPTIONS, adapter=adapter), say=said.append)
    assert said == [
        f"adapter {adapter} says that its base is google/medgemma-27b-it; it is merged into {answering}"
    ]


def test_a_study_without_an_image_has_an_empty_response_and_says_why(
    scripted: Any, lumbar_store: Path, answering: Path, tmp_path: Path
) -> None:
    shutil.copytree(lumbar_store.parent, tmp_path / "lumbar")
    store = tmp_path / "lumbar/lumbar.store"
    options = replace(OPTIONS, images="sagittal-t2=1,axial-t2=0", limit=2)
    scripted(Scripted(["one", "two"]))
    generated(store, answering, tmp_path / "a.jsonl", options)
    root = next((tmp_path / "lumbar").glob("rsna*"))
    (root / lines(tmp_path / "a.jsonl")[0]["images"][0]).write_bytes(b"")
    scripted(Scripted(["two"]))
    *_, state = generated(store, answering, tmp_path / "b.jsonl", replace(options, score_slots=True))
    assert (state.answered, state.without_image, state.failed_images) == (2, 1, 1)
    without, other = lines(tmp_path / "b.jsonl")
    assert (without["response"], without["finish"], without["images"]) == ("", "no image", [])
    (why,) = without["failed_images"].values()
    assert why == "no-pixels: the file is empty"
    assert "slot_probabilities" not in without
    assert other["response"] == "two"
    # What is compared counts it as a response that says nothing.
    read = read_responses(tmp_path / "b.jsonl")
    assert read.flaws[0] == {"empty": 1}
    assert read.has_probabilities.tolist() == [False, True]


def test_too_little_memory_halves_the_batch_and_is_said_at_one(
    scripted: Any, lumbar_store: Path, answering: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    scripted(Scripted("abc", most=1))
    generated(lumbar_store, answering, tmp_path / "a.jsonl", replace(OPTIONS, batch=3), say=said.append)
    assert [line["response"] for line in lines(tmp_path / "a.jsonl")] == ["a", "b", "c"]
    assert [line.partition(".")[0] for line in said] == [
        "cpu ran out of memory with 3 studies at once; going on with 1"
    ]
    scripted(Scripted("abc", most=0))
    with pytest.raises(
        UsageError, match="device cpu has not the memory for one study; free it, show fewer `images`"
    ):
        generated(lumbar_store, answering, tmp_path / "b.jsonl", OPTIONS)
    assert not (tmp_path / "b.jsonl").exists()


def test_too_little_memory_for_the_model_is_said(
    lumbar_store: Path, answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: object, **options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 GB")

    monkeypatch.setattr("embedstore.generation.generative_model.load_image_text_model", load)
    with pytest.raises(UsageError, match=r"device cpu has not the memory for .*tiny-it in float32; free it"):
        generated(lumbar_store, answering, tmp_path / "a.jsonl")


def test_whoever_stops_keeps_the_batches_that_are_done(
    scripted: Any, lumbar_store: Path, answering: Path, tmp_path: Path
) -> None:
    asked = iter([False, False, False, False, False, True, True, True])
    scripted(Scripted("abc"))
    states = generated(
        lumbar_store,
        answering,
        tmp_path / "a.jsonl",
        replace(OPTIONS, batch=1),
        stopping=lambda: next(asked, True),
    )
    assert states[-1].done == len(lines(tmp_path / "a.jsonl")) == 1


def test_a_task_that_is_not_of_studies_and_options_that_are_none_are_refused(
    lumbar_store: Path, answering: Path, tmp_path: Path
) -> None:
    task = open_store(lumbar_store).tasks[0]
    *_, state = generated(lumbar_store, answering, tmp_path / "a.jsonl", replace(OPTIONS, task=task))
    assert state.studies == 2, "the test study has no label"
    for options, message in (
        ({"batch": 0}, "`batch` must be 1 or more; found 0"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be 1 or more"),
        ({"temperature": -0.1}, "`temperature` must be from 0"),
        ({"seed": -1}, "`seed` must be 0 or more"),
    ):
        with pytest.raises(UsageError, match=message):
            GenerateOptions(**options)
    with pytest.raises(UsageError, match="`images` must be from 1 to 256; found 0"):
        generated(lumbar_store, answering, tmp_path / "b.jsonl", replace(OPTIONS, images="0"))
