"""Answers and slots of a tiny Gemma 3 against transformers, called token by token without any batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from embedstore.errors import DataError, UsageError
from embedstore.generation.adapter import open_adapter
from embedstore.generation.generation_options import END, TOKEN_LIMIT
from embedstore.generation.generative_model import GenerativeModel, Question
from embedstore.generation.model_files import open_model_files
from embedstore.lumbar.severity_codes import CODES, write_response
from tests.checkpoints import pictures, write_answering_gemma
from tests.embedstore.generation.test_adapter import written

CPU = torch.device("cpu")
GREY = pictures(4)
# Another number of pictures and of words: the shorter one is padded in a batch.
QUESTIONS = [
    Question(text="grade it", pictures=GREY[:1], seed=1),
    Question(text="grade all of these, please", pictures=GREY[1:], seed=2),
]
CLASSES = np.random.default_rng(0).integers(0, 3, (2, 25))


@pytest.fixture(scope="module")
def model(answering: Path) -> GenerativeModel:
    return GenerativeModel(open_model_files(str(answering)), device=CPU, dtype="float32")


class StepByStep:
    """The model through transformers alone: one question, one token, one pass at a time, with a cache."""

    def __init__(self, folder: Path) -> None:
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
        self.processor = transformers.AutoProcessor.from_pretrained(folder)

    def scores_after(self, question: Question, forced: list[int]) -> list[torch.Tensor]:
        """Return the logits after the prompt and after each of the forced tokens."""
        steps = self.steps(question)
        return [next(steps), *(steps.send(token) for token in forced)]

    def steps(self, question: Question) -> Generator[torch.Tensor, int, None]:
        """Yield the logits after the prompt, and after each token that is sent."""
        images = [Image.fromarray(pixels).convert("RGB") for pixels in question.pictures]
        # The prompt as the template has it, written out by hand.
        text = (
            "<bos><start_of_turn>user\n"
            + "<start_of_image>" * len(images)
            + question.text
            + "<end_of_turn>\n"
            "<start_of_turn>model\n"
        )
        inputs = self.processor(images=[images], text=[text], return_tensors="pt", add_special_tokens=False)
        cache: Any = None
        while True:
            with torch.inference_mode():
                passed = self.model(**inputs, past_key_values=cache, use_cache=True)
            token, cache = (yield passed.logits[0, -1]), passed.past_key_values
            inputs = {"input_ids": torch.tensor([[token]])}


@pytest.fixture(scope="module")
def step_by_step(answering: Path) -> StepByStep:
    return StepByStep(answering)


def test_slots_are_what_the_model_says_token_by_token(
    model: GenerativeModel, step_by_step: StepByStep
) -> None:
    found = model.slots(QUESTIONS, CLASSES)
    tokenizer = step_by_step.processor.tokenizer
    for row, question in enumerate(QUESTIONS):
        answer = tokenizer(write_response(CLASSES[row].tolist()), add_special_tokens=False).input_ids
        scores = step_by_step.scores_after(question, answer)
        text, slot = "", 0
        by_place = {}
        for at, token in enumerate(answer):
            piece = tokenizer.convert_ids_to_tokens(token)
            # A capital letter alone between quotation marks is a code: levels have digits beside theirs.
            if piece in CODES and text.endswith('"'):
                by_place[slot] = scores[at].double().numpy()
                slot += 1
            text += piece
        assert slot == 25
        ids = [tokenizer.convert_tokens_to_ids(code) for code in CODES]
        for slot, logits in by_place.items():
            level, condition = divmod(slot, 5)
            target = condition * 5 + level
            exponentials = np.exp(logits - logits.max())
            shares = exponentials[ids] / exponentials[ids].sum()
            assert found.probabilities[row, target] == pytest.approx(shares, abs=1e-5)
            assert found.mass[row, target] == pytest.approx(
                exponentials[ids].sum() / exponentials.sum(), abs=1e-5
            )
    assert found.probabilities.sum(axis=2) == pytest.approx(np.ones((2, 25)))
    assert np.ptp(found.probabilities, axis=0).max() > 1e-3, (
        "the two studies must differ for this to tell anything"
    )


def test_slots_depend_on_the_codes_before_them_and_on_none_after(model: GenerativeModel) -> None:
    changed = CLASSES.copy()
    middle = 2 * 5 + 2  # right foramen at L3/L4
    changed[:, middle] = (changed[:, middle] + 1) % 3
    before, after = model.slots(QUESTIONS, CLASSES), model.slots(QUESTIONS, changed)
    moved = np.abs(before.probabilities - after.probabilities).max(axis=(0, 2)).reshape(5, 5) > 1e-6
    order = np.arange(5)[None, :] * 5 + np.arange(5)[:, None]  # (condition, level) -> place in the answer
    place = int(order.ravel()[middle])
    assert not moved[order <= place].any()
    assert moved[order > place].any()


def test_answers_are_the_likeliest_tokens_one_by_one(
    model: GenerativeModel, step_by_step: StepByStep
) -> None:
    answers = model.answer(QUESTIONS, max_new_tokens=24)
    ends = {step_by_step.processor.tokenizer.eos_token_id}
    for question, answer in zip(QUESTIONS, answers, strict=True):
        steps = step_by_step.steps(question)
        forced = [int(next(steps).argmax())]
        while len(forced) < 24 and forced[-1] not in ends:
            forced.append(int(steps.send(forced[-1]).argmax()))
        assert answer.text == step_by_step.processor.tokenizer.decode(forced, skip_special_tokens=True)
        assert answer.tokens == len(forced)
        assert answer.finish == (END if forced[-1] in ends else TOKEN_LIMIT)


def test_company_changes_no_word_and_no_probability_beyond_rounding(model: GenerativeModel) -> None:
    together = model.slots(QUESTIONS, CLASSES)
    for temperature in (0.0, 0.7):
        answers = model.answer(QUESTIONS, max_new_tokens=12, temperature=temperature)
        alone = [model.answer([one], max_new_tokens=12, temperature=temperature)[0] for one in QUESTIONS]
        assert answers == alone
    for row, question in enumerate(QUESTIONS):
        apart = model.slots([question], CLASSES[row : row + 1])
        assert apart.probabilities[0] == pytest.approx(together.probabilities[row], abs=1e-5)


def test_draws_differ_by_seed(model: GenerativeModel) -> None:
    def drawn(seed: int) -> str:
        question = Question(text="grade it", pictures=GREY[:1], seed=seed)
        return model.answer([question], max_new_tokens=12, temperature=1.0)[0].text

    assert drawn(3) == drawn(3) != drawn(4)


def test_whoever_asks_to_stop_waits_for_one_token_at_most(model: GenerativeModel) -> None:
    (answer,) = model.answer(QUESTIONS[:1], max_new_tokens=200, stopping=lambda: True)
    assert answer.tokens == 1


def test_a_prompt_that_stands_for_images_is_refused(model: GenerativeModel) -> None:
    with pytest.raises(UsageError, match="`prompt` must not hold <start_of_image>"):
        model.answer([Question(text="see <start_of_image>", pictures=GREY[:1])], max_new_tokens=1)


def test_an_adapter_changes_answers_as_its_merged_weights_do(answering: Path, tmp_path: Path) -> None:
    name = "model.language_model.layers.1.mlp.up_proj"
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn((2, 32), generator=generator), torch.randn((32, 2), generator=generator)
    key = "base_model.model.language_model.model.layers.1.mlp.up_proj"
    adapter = written(tmp_path / "a", {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up})
    merged = GenerativeModel(
        open_model_files(str(answering)), device=CPU, dtype="float32", adapter=open_adapter(adapter)
    )
    # The same by hand, saved as a checkpoint of its own.
    by_hand = StepByStep(answering)
    weight = by_hand.model.get_submodule(name).weight
    weight.data += 3.0 * up @ down
    folder = tmp_path / "merged"
    shutil.copytree(answering, folder)
    by_hand.model.save_pretrained(folder)
    expected = GenerativeModel(open_model_files(str(folder)), device=CPU, dtype="float32")
    found = merged.slots(QUESTIONS[:1], CLASSES[:1]).probabilities
    assert found == pytest.approx(expected.slots(QUESTIONS[:1], CLASSES[:1]).probabilities, abs=1e-5)
    plain = GenerativeModel(open_model_files(str(answering)), device=CPU, dtype="float32")
    assert np.abs(found - plain.slots(QUESTIONS[:1], CLASSES[:1]).probabilities).max() > 1e-3


def test_a_tokenizer_that_joins_codes_is_refused_before_anything_is_answered(tmp_path: Path) -> None:
    write_answering_gemma(tmp_path, merges=[("N", '"')])
    joined = GenerativeModel(open_model_files(str(tmp_path)), device=CPU, dtype="float32")
    with pytest.raises(
        UsageError, match="`score_slots` needs a tokenizer in which N, M and S are one token each"
    ):
        _ = joined.layout


def test_a_checkpoint_laid_out_by_transformers_4_is_the_same_model(
    model: GenerativeModel, answering: Path, tmp_path: Path
) -> None:
    """As google/medgemma-4b-it is: names of weights, two files of processors, settings of sampling."""
    folder = tmp_path / "four"
    shutil.copytree(answering, folder)
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("vision_tower.", "vision_tower.vision_model."): tensors[name] for name in tensors}
    assert any(name.startswith("language_model.model.") for name in renamed)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    images = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    joint = {"image_seq_length": 9, "processor_class": "Gemma3Processor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(images | joint | {"do_pan_and_scan": None}))
    (folder / "processor_config.json").write_text(json.dumps(joint))
    sampling = {"do_sample": True, "top_k": 64, "top_p": 0.95, "cache_implementation": "hybrid"}
    said = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(said | sampling))
    other = GenerativeModel(open_model_files(str(folder)), device=CPU, dtype="float32")
    assert other.answer(QUESTIONS, max_new_tokens=8) == model.answer(QUESTIONS, max_new_tokens=8)
    assert np.array_equal(
        other.slots(QUESTIONS, CLASSES).probabilities, model.slots(QUESTIONS, CLASSES).probabilities
    )


def test_weights_that_are_missing_are_refused_in_place_of_random_ones(
    answering: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(answering, folder)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "layers.1.mlp.down_proj" in name)
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lacks 1 weights of the model, .*layers.1.mlp.down_proj"):
        GenerativeModel(open_model_files(str(folder)), device=CPU, dtype="float32")


def test_a_template_that_takes_no_images_is_refused(answering: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    shutil.copytree(answering, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}"
    )
    texts = GenerativeModel(open_model_files(str(folder)), device=CPU, dtype="float32")
    with pytest.raises(DataError, match=r"the chat template of .* does not take images before text"):
        texts.answer(QUESTIONS[:1], max_new_tokens=1)


def test_the_end_of_a_turn_ends_an_answer_and_is_no_word_of_it(
    model: GenerativeModel, answering: Path
) -> None:
    tokenizer = transformers.AutoProcessor.from_pretrained(answering).tokenizer
    said = json.loads((answering / "generation_config.json").read_text())
    turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert turn not in np.atleast_1d(said["eos_token_id"])
    words = tokenizer.encode("NM", add_special_tokens=False)
    answer = model._read([*words, turn, *words])
    assert (answer.text, answer.tokens, answer.finish) == ("NM", 3, END)
    assert model._read(words).finish == TOKEN_LIMIT
