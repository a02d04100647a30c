"""From a store and a generative model to a file of answers, a line for each study, durable batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from embedstore.compute_device import (
    check_device_name,
    check_dtype_name,
    is_out_of_memory,
    resolve_device,
    resolve_dtype,
)
from embedstore.decoding.decode import DecodeLimits
from embedstore.decoding.pool import DecoderPool
from embedstore.errors import UsageError
from embedstore.files import StrPath
from embedstore.generation.adapter import Adapter, open_adapter
from embedstore.generation.generation_options import NO_IMAGE, Generated, GenerateOptions
from embedstore.generation.generative_model import Answer, GenerativeModel, Question, SlotProbabilities
from embedstore.generation.model_files import ModelFiles, open_model_files, settings_of
from embedstore.generation.response_log import ResponseLog
from embedstore.generation.slice_choice import SliceRule, slice_rule
from embedstore.generation.study_images import Studies, StudyImages, StudyPlan, decoded_studies, plan_studies
from embedstore.generation.token_choice import seed_of_study
from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.severity_codes import read_response
from embedstore.store.reader import Store, as_store
from embedstore.store.tasks import read_task
from embedstore.view import MISSING

_DIGITS = 6


def _never() -> bool:
    return False


def _ignore(line: str) -> None:
    del line


def generate_responses(
    store: Store | StrPath,
    model: str,
    out: StrPath,
    options: GenerateOptions | None = None,
    *,
    say: Callable[[str], None] = _ignore,
    stopping: Callable[[], bool] = _never,
) -> Iterator[Generated]:
    """Answer the studies of a store with a generative model, and yield the state at the beginning and after each batch.

    Each line of the file has ``study_id``, ``response``, ``finish`` (``end``, ``token limit`` or ``no image``),
    ``tokens``, ``images`` and ``views`` that were shown, what ``failed_images`` and ``lacking_views`` there were, with
    `score_slots` ``slot_probabilities`` (target -> N, M, S) and ``least_code_mass``, and ``settings``, by which it was
    made. A file that is there is gone on with if all of these are the same.

    Parameters
    ----------
    store
        The store, opened or by its folder; its manifest says where the images lie.
    model
        Folder or hub id of a MedGemma or another Gemma 3 that reads images.
    out
        The file of JSON lines; its folder must exist.
    options
        How; the defaults where None.
    say
        Receives lines for people.
    stopping
        Asked between batches and tokens; when true, the batch at hand is abandoned.

    Raises
    ------
    UsageError
        For an option with another value, a file that was written by other settings, or too little memory.
    DataError, MissingWeights
        If model, adapter, store or file cannot be used.
    """
    asked = options or GenerateOptions()
    opened = as_store(store)
    rule = slice_rule(asked.images)
    studies = _planned(opened, rule, asked)
    device = resolve_device(check_device_name(asked.device))
    dtype = resolve_dtype(check_dtype_name(asked.dtype), device)
    adapter = None if asked.adapter is None else open_adapter(asked.adapter)
    files = open_model_files(model, revision=asked.revision, say=say)
    settings = _settings(files, adapter, rule, asked, studies, dtype)
    with ResponseLog(out, settings) as log:
        batches = _batches(studies.plans, asked.batch, log)
        before = sum(plan.study_id in log.done for plan in studies.plans)
        state = Generated(studies=len(studies.plans), before=before)
        yield state
        if not batches or stopping():
            return
        if adapter is not None and adapter.base.rpartition("/")[2] not in ("", files.checkpoint.name):
            say(f"adapter {adapter.folder} says that its base is {adapter.base}; it is merged into {model}")
        loaded = _load(files, device, dtype, adapter)
        work = _Work(loaded, asked, say, stopping)
        for lines in work.lines(studies, batches):
            new = [line for line in lines if line["study_id"] not in log.done]
            log.append(new)
            state = state.plus(new)
            yield state


class _Work:
    """Batches of studies through the model; a batch that memory is too small for is halved."""

    def __init__(
        self,
        model: GenerativeModel,
        asked: GenerateOptions,
        say: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._model = model
        self._asked = asked
        self._say = say
        self._stopping = stopping
        self._rows = asked.batch
        if asked.score_slots:
            _ = model.layout  # refused before the first answer

    def lines(
        self, studies: Studies, batches: Sequence[Sequence[StudyPlan]]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the lines of each batch, until somebody asks to stop."""
        plans = [plan for batch in batches for plan in batch]
        images = max(1, *(len(plan.shown) for plan in plans))
        workers = self._asked.workers
        spec = studies.spec(self._model.files.size_px)
        with DecoderPool(spec, workers=workers, limits=DecodeLimits()) as decoder:
            # The next batch is decoded while the model works on this one.
            decoded = decoded_studies(studies, plans, decoder, ahead=workers + images * self._asked.batch)
            for batch in batches:
                found = [next(decoded) for _ in batch]
                lines = self._of_batch(found)
                if self._stopping():
                    return
                yield lines

    def _of_batch(self, batch: Sequence[StudyImages]) -> list[dict[str, Any]]:
        lines = {study.plan.study_id: _line(study) for study in batch}
        seen = [study for study in batch if study.pictures]
        start = 0
        while start < len(seen) and not self._stopping():
            piece = seen[start : start + self._rows]
            try:
                self._answer(piece, lines)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)
                continue
            start += len(piece)
        return list(lines.values())

    def _answer(self, studies: Sequence[StudyImages], lines: dict[str, dict[str, Any]]) -> None:
        questions = [
            Question(
                text=self._asked.prompt.of(study.views),
                pictures=study.pictures,
                seed=seed_of_study(self._asked.seed, study.plan.study_id),
            )
            for study in studies
        ]
        answers = self._model.answer(
            questions,
            max_new_tokens=self._asked.max_new_tokens,
            temperature=self._asked.temperature,
            stopping=self._stopping,
        )
        if self._stopping():
            return
        slots = self._slots(questions, answers) if self._asked.score_slots else None
        for row, (study, answer) in enumerate(zip(studies, answers, strict=True)):
            lines[study.plan.study_id] |= {
                "response": answer.text,
                "finish": answer.finish,
                "tokens": answer.tokens,
                **({} if slots is None else _slots_line(slots, row)),
            }

    def _slots(self, questions: Sequence[Question], answers: Sequence[Answer]) -> SlotProbabilities:
        """Read the slots after each study's own codes; where it has none, after N, as published figures count it."""
        classes = np.array([read_response(answer.text).classes for answer in answers])
        return self._model.slots(questions, np.where(classes == MISSING, 0, classes))

    def _halve(self, error: Exception) -> None:
        if self._rows == 1:
            raise UsageError(
                f"device {self._model.device} has not the memory for one study; free it, show fewer `images`, or use "
                "`dtype='bfloat16'` or another `device`"
            ) from error
        before, self._rows = self._rows, self._rows // 2
        self._say(
            f"{self._model.device} ran out of memory with {before} studies at once; going on with {self._rows}. "
            "Probabilities from here on may differ in their last bits from those before"
        )
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()


def _planned(store: Store, rule: SliceRule, asked: GenerateOptions) -> Studies:
    labelled = None
    if asked.task is not None:
        task = read_task(store.path, asked.task)
        if task.unit != "study":
            raise UsageError(f"`task` must be one of studies; {asked.task} is of a {task.unit}")
        labelled = task.unit_ids
    return plan_studies(
        store, rule, ids=asked.ids, labelled=labelled, where=asked.where, limit=asked.limit, key=asked.key
    )


def _settings(
    files: ModelFiles,
    adapter: Adapter | None,
    rule: SliceRule,
    asked: GenerateOptions,
    studies: Studies,
    dtype: str,
) -> dict[str, Any]:
    """Return what an answer is made by; batch and device are left out, which change no more than the last bits."""
    settings = settings_of(files) | {
        "adapter_sha256": None if adapter is None else adapter.sha256,
        "prompt_sha256": asked.prompt.sha256,
        "slices": str(rule),
        "size_px": files.size_px,
        "mri_range": studies.mri_range,
        "max_new_tokens": asked.max_new_tokens,
        "temperature": asked.temperature,
        "seed": asked.seed,
        "score_slots": asked.score_slots,
        "dtype": dtype,
    }
    return {name: setting for name, setting in settings.items() if setting is not None}


def _batches(plans: Sequence[StudyPlan], size: int, log: ResponseLog) -> list[Sequence[StudyPlan]]:
    """Return the batches with a study that has no line, whole: the same company gives the same last bits."""
    batches = [plans[start : start + size] for start in range(0, len(plans), size)]
    return [batch for batch in batches if any(plan.study_id not in log.done for plan in batch)]


def _load(files: ModelFiles, device: torch.device, dtype: str, adapter: Adapter | None) -> GenerativeModel:
    try:
        return GenerativeModel(files, device=device, dtype=dtype, adapter=adapter)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(
            f"device {device} has not the memory for {files.checkpoint.origin} in {dtype}; free it, or use "
            "`dtype='bfloat16'` or another `device`"
        ) from error


def _line(study: StudyImages) -> dict[str, Any]:
    """Return a study's line as it is without an answer."""
    line: dict[str, Any] = {
        "study_id": study.plan.study_id,
        "response": "",
        "finish": NO_IMAGE,
        "tokens": 0,
        "images": [image.record.image_id for image in study.shown],
        "views": study.views,
    }
    if study.failed:
        line["failed_images"] = dict(study.failed)
    if study.plan.lacking:
        line["lacking_views"] = list(study.plan.lacking)
    return line


def _slots_line(slots: SlotProbabilities, row: int) -> dict[str, Any]:
    rounded = [[_short(value) for value in of_target] for of_target in slots.probabilities[row].tolist()]
    return {
        "slot_probabilities": dict(zip(TARGETS, rounded, strict=True)),
        "least_code_mass": _short(float(slots.mass[row].min())),
    }


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
