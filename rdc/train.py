"""Training of one codec: steps, log lines, checkpoints, and the way back when the loss explodes."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rdc.data import PixelCache
from rdc.ddp import Alone
from rdc.files import write_sealed
from rdc.learner import Learner
from rdc.memory import WAY_OUT, OutOfMemory, Place, first_words, where_memory_ran_out
from rdc.metrics import finite_or_none, psnr_db
from rdc.models.codec import Codec
from rdc.preempt import StoppedEarly
from rdc.result import RUNG_FILE
from rdc.resume import MetricsLog, Progress, ResumePoint, save_resume
from rdc.spec import RunSettings, TrialSpec
from rdc.validation import slope_start, validate, write_validation

_log = logging.getLogger(__name__)

MAX_ROLLBACKS = 3
ROLLBACK_RATE_FACTOR = 0.5
SNAPSHOT_STEPS = 50
# A mean loss this many times the best one so far is no training noise: images differ by less than 20 times.
EXPLODED_FACTOR = 50.0


class TrainingDiverged(RuntimeError):
    """The loss exploded again after every roll-back; the text names the cause and the step."""


@dataclasses.dataclass(frozen=True)
class TrainLog:
    """What training says about itself."""

    steps: int
    wall_s: float
    micro_batch: int
    rollbacks: list[dict[str, Any]]
    resumed_at_steps: list[int]
    out_of_memory: list[dict[str, Any]]

    @classmethod
    def of(cls, progress: Progress, *, micro_batch: int) -> TrainLog:
        return cls(
            steps=progress.step,
            wall_s=progress.elapsed_s,
            micro_batch=micro_batch,
            rollbacks=progress.rollbacks,
            resumed_at_steps=progress.resumed_at_steps,
            out_of_memory=progress.out_of_memory,
        )


def _never() -> bool:
    return False


def train(
    codec: Codec,
    spec: TrialSpec,
    run: RunSettings,
    *,
    crops: PixelCache,
    validation: PixelCache,
    metrics: MetricsLog,
    resume: ResumePoint | None = None,
    preempted: Callable[[], bool] = _never,
    team: Alone | None = None,
) -> TrainLog:
    """Train in place, and leave the averaged weights in the codec.

    preempted: asked before each step; on True the state is written to resume.pt and StoppedEarly raised, as
    at run.stop_at_step. team: the processes that share each batch; the first of them writes the files.
    Raises TrainingDiverged, OutOfMemory.
    """
    trainer = _Trainer(codec, spec, run, crops=crops, validation=validation, metrics=metrics, team=team)
    trainer.preempted = preempted
    if resume is not None:
        trainer.continue_from(resume)
    with _fast_kernels():
        trainer.run_to_the_end()
    trainer.learner.adopt_average()
    return TrainLog.of(trainer.progress, micro_batch=trainer.learner.micro_batch)


class _Trainer:
    def __init__(
        self,
        codec: Codec,
        spec: TrialSpec,
        run: RunSettings,
        *,
        crops: PixelCache,
        validation: PixelCache,
        metrics: MetricsLog,
        team: Alone | None = None,
    ) -> None:
        codec.set_transform_precision(spec.precision)
        codec.train()
        self._team = team or Alone()
        self.learner = Learner(codec, spec.recipe, lmbda=spec.lmbda, seed=spec.seed, team=self._team)
        self.progress = Progress()
        self.preempted: Callable[[], bool] = _never
        self._spec = spec
        self._run = run
        self._crops = crops
        self._validation = validation
        self._metrics = metrics
        self._device = next(codec.parameters()).device
        self._window: list[Tensor] = []  # of each step since the last line, on the device
        self._last_tick_s = self._last_save_s = time.monotonic()
        self._timed_steps, self._timed_s = 0, 0.0
        self._good = self._saved = self._snapshot()

    def continue_from(self, resume: ResumePoint) -> None:
        self._restore(resume)
        self.progress.resumed_at_steps.append(self.progress.step)
        self._good = self._saved = (
            self._snapshot() if resume.good is None else self._with_history(resume.good)
        )
        self._metrics.event("resume", step=self.progress.step)

    def run_to_the_end(self) -> None:
        steps, run = self._spec.recipe.steps, self._run
        while self.progress.step < steps:
            if (status := self._asked_to_stop()) is not None:
                self._stop(status)
            self._one_step()
            step = self.progress.step
            if (step % run.log_every == 0 or step == steps) and not self._log_window():
                continue
            if step < steps and (
                step == slope_start(steps) or (run.validate_every and step % run.validate_every == 0)
            ):
                self._validate()
            if self._is_good_enough_to_return_to():
                self._good = self._snapshot()
            if time.monotonic() - self._last_save_s >= run.checkpoint_every_s or step == steps:
                self._save()

    def _one_step(self) -> None:
        step, recipe = self.progress.step, self._spec.recipe
        share = self._team.share(recipe.batch_size)
        x = self._crops.crops_uint8(step, recipe.batch_size, recipe.crop_px, self._spec.seed, share)
        x = x.to(self._device, non_blocking=True).float().div_(255)
        self._window.append(self._update(x, step))
        self.progress.step += 1
        self._timed_steps += 1

    def _update(self, x: Tensor, step: int) -> Tensor:
        """One step; where memory is too small for it, the same step in smaller parts from now on."""
        while True:
            try:
                return self.learner.update(x, step)
            except (MemoryError, RuntimeError) as error:
                place = where_memory_ran_out(error)
                if place is None:
                    raise
                if min(self.learner.micro_batch, len(x)) == 1:
                    raise OutOfMemory(self._nothing_smaller(place, step, error)) from error
            # Not inside the handler: the error's traceback holds the tensors that were too many.
            if place == "cuda":
                torch.cuda.empty_cache()
            # A process of a team has fewer images than the batch: what it can pass at once is what counts.
            self._use_micro_batch(-(-min(self.learner.micro_batch, len(x)) // 2), place, step)

    def _use_micro_batch(self, micro_batch: int, place: str, step: int) -> None:
        self.learner.micro_batch = micro_batch
        entry = {"step": step, "device": place, "micro_batch": micro_batch}
        self.progress.out_of_memory = [*self.progress.out_of_memory, entry]
        self._team.ran_out(place)
        _log.warning("out of %s memory at step %d: now %d images per pass", place, step, micro_batch)
        self._metrics.event("micro_batch", **entry)

    def _nothing_smaller(self, place: Place, step: int, error: Exception) -> str:
        tried = [self._spec.recipe.batch_size, *(e["micro_batch"] for e in self.progress.out_of_memory)]
        sizes = ", ".join(map(str, dict.fromkeys(tried)))
        return (
            f"{place} memory ran out at step {step} with a single image of {self._spec.recipe.crop_px} px "
            f"per pass (tried {sizes} images; {first_words(error)}); {WAY_OUT}"
        )

    def _log_window(self) -> bool:
        """Write the means since the last line; False if they made training go back."""
        progress = self.progress
        means = (value / len(self._window) for value in functools.reduce(torch.add, self._window).tolist())
        loss, bpp, mse_mean, distortion, aux_loss = means
        total = bpp + distortion
        cause = self._what_is_wrong(loss, total)
        if cause is not None:
            self._roll_back(cause)
            return False
        progress.best_rd_loss = min(total, progress.best_rd_loss or math.inf)
        self._write_line(loss=loss, bpp=bpp, mse=mse_mean, rd_loss_=total, aux_loss=aux_loss)
        self._window = []
        return True

    def _is_good_enough_to_return_to(self) -> bool:
        """Whether all losses up to here are known, the last such state is long ago, and no weight broken."""
        return (
            not self._window
            and self.progress.step - self._good.progress.step >= SNAPSHOT_STEPS
            and self.learner.is_finite()
        )

    def _write_line(self, *, loss: float, bpp: float, mse: float, rd_loss_: float, aux_loss: float) -> None:
        self._tick()
        progress, recipe = self.progress, self._spec.recipe
        step_s = self._timed_s / max(1, self._timed_steps)
        self._metrics.points(
            progress.step,
            **{
                "train/loss": loss,
                "train/bpp": bpp,
                "train/mse": mse,
                "train/psnr_db": finite_or_none(psnr_db(mse)),
                "train/rd_loss": rd_loss_,
                "train/aux_loss": aux_loss,
                "train/lr": self.learner.learning_rate(progress.step - 1),
                "train/images_per_s": round(recipe.batch_size / max(step_s, 1e-9), 3),
                "eta_s": round(step_s * (recipe.steps - progress.step), 1),
            },
        )

    def _what_is_wrong(self, loss: float, total: float) -> str | None:
        """Why training has to go back. total: the mean rd_loss since the last line."""
        step, best = self.progress.step, self.progress.best_rd_loss
        if not (math.isfinite(loss) and math.isfinite(total)):
            return f"the loss is not finite before step {step}"
        if best is None or total <= EXPLODED_FACTOR * best:
            return None
        # One image may do it alone, and does it again after every roll-back: the model, and not the training,
        # fails on it. What its gradient may change is clipped.
        usual = float(torch.stack([bpp + distortion for _, bpp, _, distortion, _ in self._window]).median())
        if usual <= EXPLODED_FACTOR * best:
            self._metrics.event("outlier", step=step, rd_loss=total, median_rd_loss=usual)
            _log.warning(
                "rd_loss %.3g before step %d, in the median %.3g: one batch fails", total, step, usual
            )
            return None
        return f"rd_loss {usual:.3g} at step {step} is over {EXPLODED_FACTOR:.0f} times the best, {best:.3g}"

    def _roll_back(self, cause: str) -> None:
        """Weights and optimisers of the last good state, and half the learning rate."""
        self._tick()
        step, rollbacks, good = self.progress.step, self.progress.rollbacks, self._good
        if len(rollbacks) >= MAX_ROLLBACKS:
            raise TrainingDiverged(
                f"{cause}; gave up after {MAX_ROLLBACKS} roll-backs with lower learning rates"
            )
        rate_scale = self.learner.rate_scale * ROLLBACK_RATE_FACTOR
        micro_batch = self.learner.micro_batch
        self._restore(self._with_history(good))
        self.learner.rate_scale = rate_scale
        self.learner.micro_batch = micro_batch  # what was too much then is too much now
        rate = self.learner.learning_rate(self.progress.step)
        rollback = {"step": step, "to_step": self.progress.step, "cause": cause, "learning_rate": rate}
        self.progress.rollbacks = [*rollbacks, rollback]
        self._metrics.event("rollback", **rollback)
        self._good = self._snapshot()  # the same weights, with the new rate and the record of why
        _log.warning("rolled back to step %d: %s", self.progress.step, cause)

    def _with_history(self, point: ResumePoint) -> ResumePoint:
        """An older state that knows what has happened since then."""
        now = self.progress
        progress = dataclasses.replace(
            point.progress,
            elapsed_s=now.elapsed_s,
            resumed_at_steps=now.resumed_at_steps,
            out_of_memory=now.out_of_memory,
        )
        return dataclasses.replace(point, progress=progress, good=None)

    def _asked_to_stop(self) -> Literal["paused", "preempted"] | None:
        step, stop_at_step = self.progress.step, self._run.stop_at_step
        wanted, micro_batch, place = self._team.agree(self.preempted(), self.learner.micro_batch)
        if micro_batch < self.learner.micro_batch:
            self._use_micro_batch(micro_batch, place, step)
        if stop_at_step is not None and stop_at_step <= step:
            return "paused"
        return "preempted" if wanted else None

    def _stop(self, status: Literal["paused", "preempted"]) -> None:
        """Write the very state that is reached, and the one to return to if it turns out to be diverging."""
        rung = self._rung() if status == "paused" and self._team.is_first else {}
        if self.progress.step and self._team.is_first:
            point = self._snapshot()
            good = None if self._good.progress.step == point.progress.step else self._good
            self._write(dataclasses.replace(point, good=good))
        if rung:
            write_sealed(Path(self._run.folder) / RUNG_FILE, rung)
        _log.info("%s at step %d", status, self.progress.step)
        raise StoppedEarly(status, **{"step": self.progress.step, **rung})

    def _rung(self) -> dict[str, Any]:
        """The validation here, of weights that may be broken without anybody having noticed."""
        step = self.progress.step
        if self._metrics.validation_at(step) is None and self.learner.is_finite():
            self._validate()
        row = self._metrics.validation_at(step) or {}
        self._tick()
        return {
            "spec_id": self._spec.spec_id,
            "step": step,
            **{f"val_{name}": row.get(f"val/{name}") for name in ("rd_loss", "bpp", "psnr_db")},
            "elapsed_s": round(self.progress.elapsed_s, 3),
        }

    def _validate(self) -> None:
        if not self._team.is_first:
            return
        with self.learner.averaged() as codec:
            codec.update(force=True, update_quantiles=True)
            result = validate(codec, self._validation, self._spec.lmbda)
        write_validation(self._metrics, self.progress.step, result)

    def _save(self) -> None:
        """Write resume.pt: the state that training would roll back to now, or the final one.

        A later state may be diverging already. A resumed training could go back no further than to it, and
        would end elsewhere than an undisturbed one.
        """
        point = self._good
        if self.progress.step == self._spec.recipe.steps and self.learner.is_finite():
            point = self._snapshot()
        if point is not self._saved and self._team.is_first:
            self._write(point)
        self._last_save_s = time.monotonic()

    def _write(self, point: ResumePoint) -> None:
        self._metrics.sync()
        save_resume(Path(self._run.folder), point, spec_id=self._spec.spec_id)
        self._saved = point

    def _snapshot(self) -> ResumePoint:
        self._tick()
        progress = dataclasses.replace(self.progress, window=[row.tolist() for row in self._window])
        return ResumePoint(progress, self.learner.state(), self._metrics.mark())

    def _restore(self, point: ResumePoint) -> None:
        self.learner.restore(point.learner)
        self.progress = dataclasses.replace(
            point.progress,
            rollbacks=list(point.progress.rollbacks),
            resumed_at_steps=list(point.progress.resumed_at_steps),
            out_of_memory=list(point.progress.out_of_memory),
        )
        self._window = [torch.tensor(row, device=self._device) for row in point.progress.window]

    def _tick(self) -> None:
        now_s = time.monotonic()
        self.progress.elapsed_s += now_s - self._last_tick_s
        self._timed_s += now_s - self._last_tick_s
        self._last_tick_s = now_s


def _fast_kernels() -> Any:
    """On CUDA let cuDNN try its kernels on the first steps: all steps have the same shapes."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True)
