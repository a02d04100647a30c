"""The training itself: epochs of steps, validation by unit, and a state that every kill leaves whole.

Everything drawn in a step follows from (seed, step, process), so that a step that is computed again, after a kill or
after the memory ran out, is the same step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedstore.compute_device import is_out_of_memory
from embedstore.errors import UsageError
from embedstore.view import MISSING
from finetune.recipe import Recipe
from finetune.towers.trainable_blocks import require_gradients
from finetune.towers.tunable import TunableTower
from finetune.training.ema import WeightMean, load_weights
from finetune.training.head_start import cut, seed_of
from finetune.training.lesson import Keeping, Lesson, Progress, Reached, Stopped, TrainingDiverged
from finetune.training.losses import cell_weights, probabilities_of, summed_loss
from finetune.training.optimiser import make_optimiser, set_rates, share_of_rate
from finetune.training.state import MetricsLog, State, save_state
from finetune.training.validation import Validation, unit_probabilities, validation_of

_ORDER, _STEP = 1, 2  # places of draws
_LOGGED_EVERY = 10


class Trainer:
    """Trains a model; `run` returns when it is done.

    Parameters
    ----------
    accelerator
        Of `finetune.training.devices.accelerated`.
    model
        On the accelerator's device, with the weights marked that learn.
    lesson, recipe, keeping
        From what, how, and where to.
    """

    def __init__(
        self, accelerator: Any, model: TunableTower, lesson: Lesson, recipe: Recipe, keeping: Keeping
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.lesson = lesson
        self.recipe = recipe
        self.keeping = keeping
        self.progress = Progress(micro_batch=recipe.micro_batch or recipe.batch)
        self.optimiser = make_optimiser(model, recipe)
        self.mean = WeightMean(model, recipe.ema) if recipe.ema else None
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}
        # Only passes go through it: DistributedDataParallel where there are several processes.
        self.passes = accelerator.prepare(model)
        self._saved_at = time.monotonic()

    @property
    def steps_of_epoch(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.lesson.learned) // self.recipe.batch)

    @property
    def steps(self) -> int:
        """Steps of the whole schedule, which an early stop does not shorten."""
        return self.steps_of_epoch * self.recipe.epochs

    def run(self) -> Progress:
        """Train to the last epoch, or until the validation loss no longer falls; leave the best weights in the model.

        Raises
        ------
        Stopped
            If somebody asked for it; the state is saved.
        TrainingDiverged
            If a loss is no number.
        """
        log = MetricsLog(self.keeping.folder, step=self.progress.step) if self._is_main else None
        try:
            if not self.progress.history:
                self._validated(log)  # of the base with the head alone
            while self.progress.epoch < self.recipe.epochs and self.progress.waited < self.recipe.patience:
                self._epoch(log)
                self._validated(log)
                self._save()
        finally:
            if log is not None:
                log.close()
        load_weights(self.weights, self.best)
        return self.progress

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self.progress = Progress(**state.progress)
        device = self.accelerator.device
        tensors = {name: tensor.to(device) for name, tensor in state.tensors.items()}
        self._load_buffers(tensors)
        load_weights(self.weights, {name: tensors[f"weight.{name}"] for name in self.weights})
        self.best = {name: tensors[f"best.{name}"] for name in self.weights}
        if self.mean is not None:
            self.mean.weights = {name: tensors[f"mean.{name}"] for name in self.weights}
            self.mean.steps = self.progress.step
        for name, weight in self.weights.items():
            if f"exp_avg.{name}" in tensors:
                self.optimiser.state[weight] = {
                    "step": torch.tensor(float(self.progress.step)),
                    "exp_avg": tensors[f"exp_avg.{name}"],
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"],
                }

    @property
    def _is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def _load_buffers(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.model.head.mean.copy_(tensors["head.mean"])
        self.model.head.factor.copy_(tensors["head.factor"])

    def _epoch(self, log: MetricsLog | None) -> None:
        progress, recipe = self.progress, self.recipe
        order = np.random.default_rng([recipe.seed, _ORDER, progress.epoch]).permutation(self.lesson.learned)
        batches = cut(order, recipe.batch)[progress.in_epoch :]
        own = [self._share(batch) for batch in batches]
        self.passes.train()
        began, before = time.monotonic(), progress.images
        given = self.lesson.inputs.batches(own, view=recipe.view_of(progress.epoch))
        for batch, mine, inputs in zip(batches, own, given, strict=True):
            self._pause(began)
            loss, norm = self._step(batch, mine, inputs)
            progress.step += 1
            progress.in_epoch += 1
            progress.images += len(batch)
            speed = (progress.images - before) / max(time.monotonic() - began, 1e-9)
            if log is not None and (progress.step % _LOGGED_EVERY == 0 or progress.in_epoch == 1):
                rate = share_of_rate(progress.step - 1, self.steps, recipe.warm_up)
                log.add(progress.step, loss=loss, norm=norm, share_of_rate=rate, images_per_s=speed)
            done = min(progress.in_epoch * recipe.batch, len(order))
            self.keeping.show(Reached(progress.epoch + 1, done, len(order), loss, speed))
        progress.seconds += time.monotonic() - began
        progress.epoch, progress.in_epoch = progress.epoch + 1, 0

    def _share(self, batch: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return this process's images of a batch; one that counts for nothing where there are too few."""
        mine = batch[self.accelerator.process_index :: self.accelerator.num_processes]
        return mine if len(mine) else batch[:1]

    def _pause(self, began: float) -> None:
        """Keep the state if it is time, or if somebody asked to stop."""
        stopping = self.keeping.stopping()
        if stopping or time.monotonic() - self._saved_at > 60 * self.keeping.minutes:
            spent = self.progress.seconds
            self.progress.seconds += time.monotonic() - began
            self._save()
            if stopping:
                raise Stopped
            self.progress.seconds = spent

    def _step(
        self, batch: npt.NDArray[np.int64], mine: npt.NDArray[np.int64], inputs: torch.Tensor
    ) -> tuple[float, float]:
        """Do one step and return the batch's mean loss and its gradient's length."""
        while True:
            try:
                loss = self._gradients(batch, mine, inputs)
                break
            except (RuntimeError, MemoryError) as error:
                self._halve(error)
        clip = self.recipe.clip or float("inf")
        length = torch.nn.utils.clip_grad_norm_(self.weights.values(), clip)
        if not (np.isfinite(loss) and bool(torch.isfinite(length))):
            raise self._diverged(loss, float(length))
        if self.progress.step == 0:
            require_gradients(self.model)
        set_rates(self.optimiser, share_of_rate(self.progress.step, self.steps, self.recipe.warm_up))
        self.optimiser.step()
        if self.mean is not None:
            self.mean.update(self.model)
        return loss, float(length)

    def _gradients(
        self, batch: npt.NDArray[np.int64], mine: npt.NDArray[np.int64], inputs: torch.Tensor
    ) -> float:
        """Compute the gradient of a batch in pieces; return its mean loss."""
        weights, device = self.lesson.class_weights, self.accelerator.device
        everyone = torch.from_numpy(self.lesson.y[batch]).to(device)
        total = cell_weights(everyone, weights).sum()
        processes = self.accelerator.num_processes
        torch.manual_seed(
            seed_of(self.recipe.seed, _STEP, self.progress.step, self.accelerator.process_index)
        )
        self.optimiser.zero_grad(set_to_none=True)
        counts = len(batch) > self.accelerator.process_index
        labels = torch.from_numpy(self.lesson.y[mine]).to(device)
        labels = labels if counts else torch.full_like(labels, MISSING)
        pieces = cut(np.arange(len(mine)), self.progress.micro_batch)
        summed = torch.zeros((), device=device)
        for number, piece in enumerate(pieces):
            with self._unsynchronised(last=number == len(pieces) - 1):
                logits = self.passes(inputs[piece], is_residual=self.lesson.inputs.is_residual)
                loss = summed_loss(logits, labels[piece], weights)
                # Processes' gradients are averaged, and are to be added.
                self.accelerator.backward(loss * processes / total)
                summed += loss.detach()
        if processes > 1:
            summed = self.accelerator.reduce(summed, reduction="sum")
        return float(summed / total)

    def _unsynchronised(self, *, last: bool) -> AbstractContextManager[None]:
        manager: AbstractContextManager[None] = (
            nullcontext() if last else self.accelerator.no_sync(self.passes)
        )
        return manager

    def _halve(self, error: Exception) -> None:
        """Go on with half of the images at once; raise what cannot be mended so."""
        if not is_out_of_memory(error):
            raise error
        before = self.progress.micro_batch
        if before == 1 or self.accelerator.num_processes > 1:
            raise UsageError(
                f"{self.accelerator.device} has not the memory for {before} images at once; use a smaller "
                "`micro_batch`, `recompute`, fewer `blocks`, or dtype bfloat16"
            ) from error
        self.progress.micro_batch = -(-before // 2)
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        self.keeping.say(
            f"out of memory with {before} images at once; going on with {self.progress.micro_batch}, and "
            f"{-(-self.recipe.batch // self.progress.micro_batch)} pieces to a batch of {self.recipe.batch}"
        )

    def _diverged(self, loss: float, length: float) -> TrainingDiverged:
        kept = f"the state of an earlier step is kept in {self.keeping.folder}"
        return TrainingDiverged(
            f"step {self.progress.step + 1}: the loss is {loss} and its gradient's length {length}; {kept}. Likely "
            "causes: a learning rate that is too high (lower `lr` or `head_lr`, lengthen `warm_up`), no `clip`, "
            "bfloat16 where float32 is needed (`dtype`), or a damaged checkpoint of the base"
        )

    def _validated(self, log: MetricsLog | None) -> None:
        """Judge the model after an epoch and remember its weights if they are the best."""
        progress = self.progress
        with nullcontext() if self.mean is None else self.mean.in_place(self.model):
            found = self.validate()
            if not np.isfinite(found.loss):
                raise self._diverged(found.loss, float("nan"))
            if found.loss < progress.best_loss:
                progress.best_epoch, progress.best_loss, progress.waited = progress.epoch, found.loss, 0
                self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}
            else:
                progress.waited += 1
        progress.history.append({"epoch": progress.epoch, **found.to_json()})
        if log is not None:
            numbers = {f"validation_{name}": number for name, number in found.to_json().items()}
            log.add(
                progress.step,
                epoch=progress.epoch,
                **{name: number for name, number in numbers.items() if number is not None},
            )
        area = "" if np.isnan(found.auroc) else f", AUROC {found.auroc:.3f}"
        self.keeping.say(
            f"epoch {progress.epoch}: validation loss {found.loss:.4f}{area}, accuracy {found.accuracy:.3f}"
        )

    def validate(self) -> Validation:
        """Judge the model by the units of the images that judge."""
        lesson = self.lesson
        units, unit_of_image = np.unique(lesson.unit_of_image[lesson.validation], return_inverse=True)
        said = self.probabilities(lesson.validation)
        speaks = lesson.y[lesson.validation] != MISSING
        of_units = unit_probabilities(said, unit_of_image, speaks, n_units=len(units))
        return validation_of(lesson.y_of_unit[units], of_units)

    @torch.no_grad()
    def probabilities(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return (n, targets, classes) of images as they are."""
        self.model.eval()
        targets, classes = self.lesson.class_weights.shape
        return probabilities_of(
            np.concatenate(list(self._logits(numbers))), n_targets=targets, n_classes=classes
        )

    def _logits(self, numbers: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.float32]]:
        inputs = self.lesson.inputs
        for given in inputs.batches(cut(numbers, self.progress.micro_batch), view=None):
            with self.accelerator.autocast():
                logits = self.model(given, is_residual=inputs.is_residual)
            yield logits.float().cpu().numpy()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if not self._is_main:
            return
        tensors = {"head.mean": self.model.head.mean, "head.factor": self.model.head.factor}
        for name, weight in self.weights.items():
            tensors[f"weight.{name}"], tensors[f"best.{name}"] = weight, self.best[name]
            for moment in ("exp_avg", "exp_avg_sq"):
                if weight in self.optimiser.state:
                    tensors[f"{moment}.{name}"] = self.optimiser.state[weight][moment]
            if self.mean is not None:
                tensors[f"mean.{name}"] = self.mean.weights[name]
        save_state(self.keeping.folder, self.keeping.question, vars(self.progress), tensors)
