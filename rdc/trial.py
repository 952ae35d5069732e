"""One trial from spec to result.json. `python -m rdc.trial PAYLOAD.json` runs one by hand."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Both take seconds of CPU, paid once by whoever forks trials. The first optimiser would import the second.
import compressai.entropy_models  # noqa: F401
import torch
import torch._dynamo

from rdc.checkpoint import save_model
from rdc.complexity import measure
from rdc.data import ImageSet, PixelCache, split
from rdc.ddp import Alone, TeamFailed, train_in_processes
from rdc.errors import UserError
from rdc.evaluate import Evaluation, evaluate
from rdc.files import (
    StorageError,
    atomic_link,
    atomic_write_json,
    read_json,
    remove_leftovers,
    storing,
)
from rdc.fresh_decode import decodes_alike
from rdc.learner import Learner
from rdc.machine import (
    device_memory_mb,
    device_name,
    environment,
    memory_peaks_mb,
    node_hash,
    resolve_device,
    set_threads,
)
from rdc.memory import give_back, in_words
from rdc.models.codec import Codec
from rdc.preempt import Preemption, StoppedEarly
from rdc.result import (
    MODEL_FILE,
    identity,
    read_any,
    read_finished,
    set_damaged_aside,
    shares_of_paper,
    write_result,
)
from rdc.resume import NO_METRICS, MetricsLog, NoMetrics, ResumePoint, drop_resume, open_resume
from rdc.shown import SHOWN_FOLDER
from rdc.spec import RunSettings, TrainedWeights, TrialSpec, parse, parse_trial, to_plain
from rdc.start import starting_codec
from rdc.static_gates import choose_static_channels
from rdc.train import TrainLog, train
from rdc.validation import Validation, rd_loss_slope, validate, write_validation

_log = logging.getLogger(__name__)

SPEC_FILE, LOG_FILE, GRID_FILE = "spec.json", "log.txt", "reconstructions.png"
_OF_UNKNOWN_TRAINING = {"budget": "external", "steps": None}


def run_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """run_trial from plain JSON: {"spec": TrialSpec.to_dict(), "run": RunSettings as a dict}."""
    spec = parse_trial(payload["spec"])
    return run_trial(spec, parse(RunSettings, dict(payload["run"]), where="run"))


def run_trial(spec: TrialSpec, run: RunSettings) -> dict[str, Any]:
    """Train, code, measure; returns what result.json in run.folder then holds.

    A finished trial is read, not run again. A failed one gives a result too: status "failed" and the cause.
    One that is paused (run.stop_at_step) or preempted (rdc.preempt) leaves no result.json, returns its status
    and step, and goes on from there when it is run again. StorageError where the folder takes no files: that
    says nothing about the trial.
    """
    folder = Path(run.folder)
    finished = read_finished(folder, spec_id=spec.spec_id)
    if finished is not None:
        drop_resume(folder)  # a kill right after the result may have left it
        return finished
    preemption = Preemption()
    with preemption.listening(), storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        remove_leftovers(folder / SHOWN_FOLDER)
        attempt = 1 + int((read_any(folder) or {}).get("attempt", 0))
        atomic_write_json(folder / SPEC_FILE, spec.to_dict())
        with _logging_to(folder / LOG_FILE):
            result = _attempt(spec, run, preemption)
        if result["status"] not in ("paused", "preempted"):
            content = {**identity(spec), "stage": run.stage or None, **result, "attempt": attempt}
            result = write_result(folder, content)
        if result["status"] not in ("paused", "preempted", "failed"):
            drop_resume(folder)  # not before the result is on the disk: until then it is all there is
    return result


def _attempt(spec: TrialSpec, run: RunSettings, preemption: Preemption) -> dict[str, Any]:
    """The trial's own part of the result, however it ends."""
    trial = None
    try:
        trial = _Trial(spec, run, preemption)
        return trial.run()
    except StoppedEarly as stopped:
        return {"status": stopped.status, "step": trial.step if trial else 0, **stopped.answer}
    except StorageError:
        raise
    except Exception as error:  # a failed trial is data; the sweep goes on
        if preemption.wanted:  # the request ends also what the trial has started, and that may come first
            return {"status": "preempted", "step": trial.step if trial else 0}
        if _is_storage(error):
            raise
        _log.error("trial %s failed:\n%s", spec.spec_id, traceback.format_exc())
        return _failure(error)


def train_share(
    payload: Mapping[str, Any], team: Alone, device: torch.device, *, preempted: Callable[[], bool]
) -> None:
    """One process's part of a training over several; the payload is that of the trial."""
    spec = parse_trial(payload["spec"])
    run = parse(RunSettings, dict(payload["run"]), where="run")
    with _logging_to(Path(run.folder) / LOG_FILE):
        _Trial(spec, run, Preemption(), device=device).train_share(team, preempted)


class _Trial:
    """The steps of a trial in order, and what they hand to each other."""

    def __init__(
        self, spec: TrialSpec, run: RunSettings, preemption: Preemption, *, device: torch.device | None = None
    ) -> None:
        self.spec = spec
        self.run_settings = run
        self.folder = Path(run.folder)
        self.device = device or resolve_device(run.device)
        self.metrics = MetricsLog(self.folder)
        self.preemption = preemption
        self.step = 0  # from which another attempt would go on

    def run(self) -> dict[str, Any]:
        set_threads(self.run_settings.threads)
        resume = self._open_what_is_there()
        self._phase("data")
        with self.preemption.at_once():
            train_set, validation_set, eval_set = self._image_sets()
            crops, validation_images, eval_images = self._caches(train_set, validation_set, eval_set)
        codec, training = self._train(crops, validation_images, resume)
        model = self._save(codec, training)
        give_back(self.device)  # training kept more than coding needs, and a second process decodes beside us
        with self.preemption.at_once():
            self._phase("evaluate")
            evaluation = evaluate(
                codec,
                eval_images,
                lmbda=self.spec.lmbda,
                with_ms_ssim=self.run_settings.ms_ssim,
                grid=self.folder / GRID_FILE,
                shown_in=self.folder,
            )
            self._phase("fresh_decode")
            fresh_decode, difference = self._fresh_decode(evaluation)
        self._phase("done")
        return {
            "status": _status(evaluation, fresh_decode),
            "training": training,
            "model": model,
            "evaluation": {
                "dataset": eval_set.name,
                "dataset_hash": eval_set.content_hash,
                "images": len(eval_set),
                **evaluation.to_dict(),
                "fresh_decode": fresh_decode,
            },
            "complexity": measure(codec.spec).to_dict(),
            "data": {
                "train": None if self.spec.external is not None else train_set.to_result(),
                "validation": validation_set.to_result(),
                "eval": eval_set.to_result(),
            },
            "environment": environment(self.device),
            "error": _mismatch(evaluation, difference),
        }

    def _train(
        self, crops: PixelCache, validation_images: PixelCache, resume: ResumePoint | None
    ) -> tuple[Codec, dict[str, Any]]:
        """(codec with its tables, the result's section on training)."""
        self._phase("train")
        started_at = time.time()
        with self.preemption.at_once():
            codec = starting_codec(self.spec, self.run_settings, self.device)
            if self.spec.weights is not None:
                return codec, self._untrained(codec, validation_images)
            choose_static_channels(codec, self.spec, crops)
        processes = self.run_settings.processes
        if processes > 1:
            log, peaks_mb = self._train_in_processes(codec, processes)
        else:
            log = train(
                codec,
                self.spec,
                self.run_settings,
                crops=crops,
                validation=validation_images,
                metrics=self.metrics,
                resume=resume,
                preempted=lambda: self.preemption.wanted,
            )
            peaks_mb = memory_peaks_mb(self.device)
        self.step = log.steps
        with self.preemption.at_once():
            codec.update(force=True, update_quantiles=True)
            validation = validate(codec, validation_images, self.spec.lmbda)
            write_validation(self.metrics, log.steps, validation)
            return codec, self._training(log, validation, started_at, peaks_mb)

    def _train_in_processes(self, codec: Codec, processes: int) -> tuple[TrainLog, dict[str, float]]:
        """As `train`, by processes of their own; (log, memory_peaks_mb of the largest)."""
        if processes > self.spec.recipe.batch_size:
            raise UserError(
                f"run.processes={processes}: a batch of {self.spec.recipe.batch_size} gives each less than "
                "one image; use fewer, or a larger budget.batch_size"
            )
        run = {**to_plain(self.run_settings), "device": self.device.type}
        payload = {"spec": self.spec.to_dict(), "run": run}
        peaks_mb = train_in_processes(payload, processes, preempted=lambda: self.preemption.wanted)
        point, damage = open_resume(self.folder, spec_id=self.spec.spec_id)
        if point is None or point.progress.step != self.spec.recipe.steps:
            raise TeamFailed("NotFinite", damage or "after the last step, not all weights are numbers")
        learner = Learner(codec, self.spec.recipe, lmbda=self.spec.lmbda, seed=self.spec.seed)
        learner.restore(point.learner)
        learner.adopt_average()
        return TrainLog.of(point.progress, micro_batch=learner.micro_batch), peaks_mb

    def train_share(self, team: Alone, preempted: Callable[[], bool]) -> None:
        """In each of these processes; what is damaged has been set aside before."""
        run = self.run_settings
        set_threads(max(1, run.threads // run.processes))
        if not team.is_first:
            self.metrics = NoMetrics(self.folder)
        resume, damage = open_resume(self.folder, spec_id=self.spec.spec_id)
        assert damage is None, f"it was whole when the processes were started: {damage}"
        crops, validation_images, _ = self._caches(*self._image_sets())
        codec = starting_codec(self.spec, run, self.device)
        choose_static_channels(codec, self.spec, crops)
        train(
            codec,
            self.spec,
            run,
            crops=crops,
            validation=validation_images,
            metrics=self.metrics,
            resume=resume,
            preempted=preempted,
            team=team,
        )

    def _caches(self, *sets: ImageSet) -> list[PixelCache]:
        return [PixelCache(images, cache_gb=self.run_settings.cache_gb) for images in sets]

    def _open_what_is_there(self) -> ResumePoint | None:
        """What an earlier attempt has left to go on from; files that are not what was written are renamed."""
        damaged_result = set_damaged_aside(self.folder)
        point, damaged_resume = open_resume(self.folder, spec_id=self.spec.spec_id)
        damaged_metrics = self.metrics.go_back(point.metrics if point else NO_METRICS)
        self.step = point.progress.step if point else 0
        self._report_damage("resume_damaged", damaged_resume)
        self._report_damage("metrics_damaged", damaged_metrics)
        self._report_damage("result_damaged", damaged_result)
        return point

    def _report_damage(self, event: str, cause: str | None) -> None:
        if cause is not None:
            _log.warning(cause)
            self.metrics.event(event, cause=cause)

    def _phase(self, phase: str) -> None:
        self.metrics.event("phase", phase=phase)

    def _image_sets(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        """(training, validation, evaluation), each checked against the ids in the spec."""
        run = self.run_settings
        train_set, eval_set = ImageSet.load(run.train_manifest), ImageSet.load(run.eval_manifest)
        for path, found, wanted in (
            (run.train_manifest, train_set.content_hash, self.spec.train_data),
            (run.eval_manifest, eval_set.content_hash, self.spec.eval_data),
        ):
            if found != wanted:
                raise UserError(
                    f"{path}: holds images {found}, the trial was planned with {wanted}; plan it anew"
                )
        if run.validation_manifest is not None:
            return train_set, ImageSet.load(run.validation_manifest), eval_set
        return *split(train_set), eval_set

    def _save(self, codec: Codec, training: Mapping[str, Any]) -> dict[str, Any]:
        """Write model.safetensors; returns what the result says of it, by which it is known again."""
        spec = self.spec
        path = self.folder / MODEL_FILE
        if isinstance(spec.weights, TrainedWeights):  # one file serves every lmbda
            atomic_link(str(self.run_settings.warm_start_checkpoint), path)
            return {"sha256": spec.weights.checkpoint_sha256, "bytes": path.stat().st_size}
        extra = {
            "spec_id": spec.spec_id,
            "lmbda": spec.lmbda,
            "precision": spec.precision,
            "budget": training["budget"],
            "steps": training["steps"],
            "train_data": spec.train_data if spec.weights is None else None,
            **({"weights": to_plain(spec.weights)} if spec.weights is not None else {}),
        }
        sha256 = save_model(path, codec, extra=extra)
        return {"sha256": sha256, "bytes": path.stat().st_size}

    def _fresh_decode(self, evaluation: Evaluation) -> tuple[dict[str, Any], str | None]:
        wanted = self.run_settings.fresh_decode_images
        count = len(evaluation.files) if wanted < 0 else min(wanted, len(evaluation.files))
        if count == 0:
            return {"images": 0, "identical": None}, None
        identical, difference = decodes_alike(
            self.folder / MODEL_FILE,
            evaluation.files[:count],
            evaluation.pixel_sha256[:count],
            device=self.device.type,
            threads=self.run_settings.threads,
        )
        return {"images": count, "identical": identical}, difference

    def _training(
        self, log: TrainLog, validation: Validation, started_at: float, peaks_mb: Mapping[str, float]
    ) -> dict[str, Any]:
        recipe, run = self.spec.recipe, self.run_settings
        return {
            "budget": run.budget_name,
            "steps": log.steps,
            "batch_size": recipe.batch_size,
            "micro_batch": log.micro_batch,
            "crop_px": recipe.crop_px,
            "images_seen": log.steps * recipe.batch_size,
            "wall_s": round(log.wall_s, 3),
            "started_at": round(started_at, 3),
            "ended_at": round(time.time(), 3),
            "node": node_hash(),
            "device": device_name(self.device),
            "threads": run.threads,
            "precision": self.spec.precision,
            **shares_of_paper(recipe),
            "val_rd_loss": validation.rd_loss,
            "val_images": validation.images,
            "rd_loss_slope_per_1k_steps": rd_loss_slope(self.metrics.rows(), recipe.steps),
            "rollbacks": log.rollbacks,
            "resumed_at_steps": log.resumed_at_steps,
            "out_of_memory": log.out_of_memory,
            "processes": run.processes,
            **peaks_mb,
            "device_memory_mb": device_memory_mb(self.device),
        }

    def _untrained(self, codec: Codec, validation_images: PixelCache) -> dict[str, Any]:
        """What is known of the training of given weights, and what they do on the validation images."""
        started_at = time.time()
        validation = validate(codec, validation_images, self.spec.lmbda)
        return {
            **(_OF_UNKNOWN_TRAINING if self.spec.external is not None else self._of_their_training()),
            "weights": to_plain(self.spec.weights),
            "started_at": round(started_at, 3),
            "ended_at": round(time.time(), 3),
            "node": node_hash(),
            "device": None,
            "precision": self.spec.precision,
            "val_rd_loss": validation.rd_loss,
            "val_images": validation.images,
        }

    def _of_their_training(self) -> dict[str, Any]:
        """Of weights that another trial has trained. What that took, its own result says, and only once."""
        recipe, run = self.spec.recipe, self.run_settings
        return {
            "budget": run.budget_name,
            "steps": recipe.steps,
            "batch_size": recipe.batch_size,
            "crop_px": recipe.crop_px,
            **shares_of_paper(recipe),
        }


def _status(evaluation: Evaluation, fresh_decode: Mapping[str, Any]) -> str:
    if fresh_decode["identical"] is False:
        return "decode_mismatch"
    return "ok" if evaluation.rate_agrees else "rate_mismatch"


def _mismatch(evaluation: Evaluation, difference: str | None) -> dict[str, Any] | None:
    if difference is not None:
        return {"class": "DecodeMismatch", "message": difference, "log": LOG_FILE}
    if not evaluation.rate_agrees:
        text = f"the coded payload differs from the estimate by {evaluation.rate_gap_pct:.2f} %"
        return {"class": "RateMismatch", "message": text, "log": LOG_FILE}
    return None


def _failure(error: Exception) -> dict[str, Any]:
    kind, message = (error.error_class, str(error)) if isinstance(error, TeamFailed) else in_words(error)
    return {
        "status": "failed",
        "environment": environment(torch.device("cpu")),
        "error": {"class": kind, "message": message, "log": LOG_FILE},
    }


def _is_storage(error: Exception) -> bool:
    """Whether the error, or one that it was raised for, is of the disk and not of the trial."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StorageError):
            return True
        cause = cause.__cause__
    return False


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Append this process's log records to the trial's own file while the block runs."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


if __name__ == "__main__":
    print(json.dumps(run_payload(read_json(sys.argv[1])), indent=2))
