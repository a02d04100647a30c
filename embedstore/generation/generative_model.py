"""A Gemma 3 that reads images and writes text: answers in batches, and the probabilities of the codes in an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from embedstore.compute_device import DTYPES
from embedstore.encoders.execution import exact_float32
from embedstore.encoders.transformers_models import (
    import_transformers,
    load_image_text_model,
    load_processor,
)
from embedstore.errors import DataError, UsageError
from embedstore.generation.adapter import Adapter
from embedstore.generation.generation_options import END, TOKEN_LIMIT
from embedstore.generation.model_files import ModelFiles
from embedstore.generation.slot_layout import SlotLayout, slot_layout
from embedstore.generation.token_choice import DrawByStudy, StopWhenAsked

_END_OF_TURN = "<end_of_turn>"
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked about a study.

    Parameters
    ----------
    text
        The prompt.
    pictures
        One or more (size, size) grey or (size, size, 3) RGB uint8, in order.
    seed
        Of its draws, where tokens are drawn.
    """

    text: str
    pictures: Sequence[npt.NDArray[np.uint8]]
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model wrote.

    Parameters
    ----------
    text
        As it was generated, without special tokens.
    tokens
        How many, the one that ends it included.
    finish
        `END` or `TOKEN_LIMIT`.
    """

    text: str
    tokens: int
    finish: str


@dataclass(frozen=True, kw_only=True)
class SlotProbabilities:
    """What a model says at each code of an answer.

    Parameters
    ----------
    probabilities
        (n, 25, 3) float64 of N, M and S in the order of `TARGETS`; each row sums to 1.
    mass
        (n, 25) float64: what the three have together among all tokens of the vocabulary.
    """

    probabilities: npt.NDArray[np.float64]
    mass: npt.NDArray[np.float64]


def _never() -> bool:
    return False


class GenerativeModel:
    """A model with its weights on a device.

    Parameters
    ----------
    files
        Its files.
    device
        Where it computes.
    dtype
        ``float32``, ``bfloat16`` or ``float16``.
    adapter
        Merged into its weights, if there is one.

    Raises
    ------
    DataError
        If weights, tokenizer or processor do not load, or the adapter does not fit.
    RuntimeError
        If memory is too small (`embedstore.compute_device.is_out_of_memory`).
    """

    def __init__(
        self, files: ModelFiles, *, device: torch.device, dtype: str, adapter: Adapter | None = None
    ) -> None:
        self.files = files
        self.device = device
        self._dtype = DTYPES[dtype]
        self._processor = load_processor(files.checkpoint)
        model = load_image_text_model(files.checkpoint, self._dtype)
        if adapter is not None:
            adapter.merge_into(model)
        self._model: Any = model.to(device)
        self._ends = _ends(model, self._processor.tokenizer)
        self._model.generation_config = import_transformers().GenerationConfig(
            do_sample=False, eos_token_id=self._ends, pad_token_id=self._pad_id
        )

    def answer(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        stopping: Callable[[], bool] = _never,
    ) -> list[Answer]:
        """Write an answer to each question of a batch.

        Parameters
        ----------
        questions
            One or more.
        max_new_tokens
            Where an answer without an end is cut off.
        temperature
            0 takes the likeliest token each time; above, tokens are drawn by each question's own seed.
        stopping
            Asked after each token; when true, what there is so far is returned.
        """
        inputs = self._inputs(questions)
        choice = [DrawByStudy(temperature, [question.seed for question in questions])] if temperature else []
        with torch.inference_mode(), exact_float32(self._dtype):
            written = self._model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                logits_processor=choice,
                stopping_criteria=[StopWhenAsked(stopping)],
            )
        return [self._read(ids) for ids in written[:, inputs["input_ids"].shape[1] :].tolist()]

    def slots(self, questions: Sequence[Question], classes: npt.NDArray[np.int64]) -> SlotProbabilities:
        """Read the probabilities of N, M and S at every code of compact answers, in one pass over each.

        The probability at a code is that of the three tokens after the prompt and the answer up to there, whose codes
        are those of `classes`, divided by their sum.

        Parameters
        ----------
        questions
            One or more.
        classes
            (n, 25) int64, 0, 1 or 2 in the order of `TARGETS`: the codes that stand before each code.

        Raises
        ------
        UsageError
            As `slot_layout`.
        """
        layout = self.layout
        layout.require_same(self._encode, classes)
        inputs = self._inputs(questions)
        prompt_length = inputs["input_ids"].shape[1]
        # Nothing is read behind the last code, nor is it.
        written = torch.from_numpy(layout.answer_ids(classes)[:, : int(layout.positions.max())]).to(
            self.device
        )
        with torch.inference_mode(), exact_float32(self._dtype):
            logits = self._model(
                **_continued(inputs, written),
                use_cache=False,
                logits_to_keep=torch.from_numpy(prompt_length + layout.positions - 1).to(self.device),
            ).logits
        logits = logits.double()
        at_codes = torch.from_numpy(layout.code_ids).to(self.device).expand(len(questions), -1, -1)
        of_codes = logits.gather(2, at_codes)
        mass = (of_codes.logsumexp(dim=2) - logits.logsumexp(dim=2)).exp()
        # Of the three alone: where all of them are next to nothing, 0 / 0 is avoided.
        shares = torch.softmax(of_codes, dim=2)
        return SlotProbabilities(probabilities=shares.cpu().numpy(), mass=mass.cpu().numpy())

    @cached_property
    def layout(self) -> SlotLayout:
        """Where the codes stand among the tokens of an answer; raises `UsageError` as `slot_layout`."""
        return slot_layout(self._encode)

    @property
    def _pad_id(self) -> int:
        tokenizer = self._processor.tokenizer
        return int(self._ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id)

    def _encode(self, text: str) -> list[int]:
        return list(self._processor.tokenizer.encode(text, add_special_tokens=False))

    def _read(self, ids: list[int]) -> Answer:
        end = next((at for at, token in enumerate(ids) if token in self._ends), None)
        text = self._processor.tokenizer.decode(
            ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        tokens = len(ids) if end is None else end + 1
        return Answer(text=text, tokens=tokens, finish=TOKEN_LIMIT if end is None else END)

    def _inputs(self, questions: Sequence[Question]) -> Inputs:
        """Return the batch on the device, shorter prompts padded at their beginning."""
        marks = [self._processor.boi_token, self._processor.tokenizer.image_token]
        for question in questions:
            if mark := next((mark for mark in marks if mark in question.text), None):
                raise UsageError(
                    f"`prompt` must not hold {mark}, which stands for an image; images come before the text"
                )
        conversations = [[{"role": "user", "content": _content(question)}] for question in questions]
        try:
            inputs = self._processor.apply_chat_template(
                conversations,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=True,
                processor_kwargs={"padding": True, "padding_side": "left"},
            )
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"the chat template of {self.files.checkpoint.origin} does not take images before text: "
                f"{' '.join(str(error).split())}"
            ) from error
        return {
            name: tensor.to(self.device, self._dtype)
            if tensor.is_floating_point()
            else tensor.to(self.device)
            for name, tensor in inputs.items()
        }


def _content(question: Question) -> list[dict[str, Any]]:
    pictures = [
        {"type": "image", "image": Image.fromarray(pixels).convert("RGB")} for pixels in question.pictures
    ]
    return [*pictures, {"type": "text", "text": question.text}]


def _continued(inputs: Inputs, written: torch.Tensor) -> Inputs:
    """Return the input of a pass over prompts and what follows them, at the positions that `generate` gives them."""
    ones = torch.ones_like(written)
    mask = torch.cat([inputs["attention_mask"], ones.to(inputs["attention_mask"].dtype)], dim=1)
    further = {
        "input_ids": torch.cat([inputs["input_ids"], written], dim=1),
        "attention_mask": mask,
        "position_ids": (mask.long().cumsum(dim=1) - 1).clamp(min=0),
    }
    if "token_type_ids" in inputs:
        # 1 is an image, whose tokens see each other; an answer is text.
        kinds = torch.zeros_like(written).to(inputs["token_type_ids"].dtype)
        further["token_type_ids"] = torch.cat([inputs["token_type_ids"], kinds], dim=1)
    return inputs | further


def _ends(model: nn.Module, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: the model's, and the end of a turn where there is such a token."""
    said: Any = getattr(model, "generation_config").eos_token_id  # noqa: B009 - not a member of every module
    found = [said] if isinstance(said, int) else list(said or [])
    found += [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    turn = tokenizer.convert_tokens_to_ids(_END_OF_TURN)
    found += [turn] if turn is not None and turn != tokenizer.unk_token_id else []
    if not found:
        raise DataError(
            "the model names no token that ends an answer: set eos_token_id in generation_config.json"
        )
    return list(dict.fromkeys(found))
