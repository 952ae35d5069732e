"""Memory that runs out: smaller parts while there are any, one clear error then, and a record of both."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rdc import bitstream
from rdc.learner import Learner
from rdc.machine import memory_warning
from rdc.memory import WAY_OUT, OutOfMemory, in_words, where_memory_ran_out
from rdc.models.codec import build
from rdc.trial import run_trial

# As torch's allocators and the libraries beneath them word it.
HOST = "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB"


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (torch.OutOfMemoryError(CUDA), "cuda"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "cuda"),
        (RuntimeError(HOST), "host"),
        (RuntimeError("could not create a memory object"), "host"),
        (RuntimeError("could not create a primitive"), "host"),
        (RuntimeError("could not create a primitive descriptor for a convolution"), None),
        (MemoryError(), "host"),
        (RuntimeError("a shape is wrong"), None),
        (ValueError("can't allocate memory"), None),
        (OutOfMemory("host memory ran out"), None),
    ],
)
def test_errors_are_told_apart(error: Exception, place: str | None) -> None:
    assert where_memory_ran_out(error) == place


def test_a_lack_of_memory_has_one_name_in_results() -> None:
    assert in_words(MemoryError()) == ("OutOfMemory", f"host memory ran out (MemoryError); {WAY_OUT}")
    kind, message = in_words(torch.OutOfMemoryError(CUDA))
    assert (kind, message) == ("OutOfMemory", f"cuda memory ran out ({CUDA[:80]}); {WAY_OUT}")
    assert in_words(OutOfMemory(message)) == (kind, message), "said already"
    assert in_words(KeyError("two\nlines")) == ("KeyError", "'two\\nlines'")


def test_torch_words_a_failed_allocation_as_expected() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert where_memory_ran_out(caught.value) == "host"


def test_gradients_of_parts_are_those_of_the_whole_batch(
    make_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise, which is drawn part by part; sums of fp32 in another order differ by their rounding."""
    monkeypatch.setattr("rdc.models.layers.hyperprior._with_noise", lambda values: values + 0.0)
    spec, _ = make_trial(batch_size=5)
    x = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    gradients = {}
    for micro_batch in (5, 3, 1):
        torch.manual_seed(0)
        learner = Learner(build(spec.model).train(), spec.recipe, lmbda=spec.lmbda, seed=0)
        learner.micro_batch = micro_batch
        learner._gradients(x, 0)
        named = learner.codec.named_parameters()
        gradients[micro_batch] = {name: p.grad.clone() for name, p in named if p.grad is not None}
        assert len(gradients[micro_batch]) > 20
    for micro_batch in (3, 1):
        for name, expected in gradients[5].items():
            found = gradients[micro_batch][name]
            assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max())), name


def too_much_for_torch() -> None:
    torch.empty(2**55, dtype=torch.uint8)


def too_much_for_python() -> None:
    bytearray(2**55)


def failing(
    monkeypatch: pytest.MonkeyPatch, allocate: Callable[[], None], *, above: int, at_step: int = 1
) -> None:
    """Let forward passes of more than `above` images ask for more than there is, from a step on.

    The errors are the allocators' own. A limit on the process (RLIMIT_AS) gives them too, but now and then
    oneDNN crashes under it, as such processes do: then a job ends by a signal, which is the sweep's business.
    """
    original = Learner._gradients

    def gradients(self: Learner, x: Tensor, step: int) -> Tensor:
        if step >= at_step and self.micro_batch > above:
            allocate()
        return original(self, x, step)

    monkeypatch.setattr(Learner, "_gradients", gradients)


@pytest.mark.parametrize("allocate", [too_much_for_torch, too_much_for_python])
def test_what_was_too_much_stands_in_the_result(
    make_trial: Any, monkeypatch: pytest.MonkeyPatch, allocate: Callable[[], None]
) -> None:
    failing(monkeypatch, allocate, above=2)
    spec, run = make_trial(batch_size=7)
    # The record goes through a checkpoint too.
    assert run_trial(spec, dataclasses.replace(run, stop_at_step=3))["status"] == "paused"
    training = run_trial(spec, run)["training"]
    assert training["micro_batch"] == 2
    assert training["out_of_memory"] == [
        {"step": 1, "device": "host", "micro_batch": 4},
        {"step": 1, "device": "host", "micro_batch": 2},
    ]
    assert training["peak_memory_mb"] == training["peak_reserved_mb"] < training["device_memory_mb"]


def test_a_single_image_that_is_too_much_ends_the_trial_with_the_way_out(
    make_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, too_much_for_torch, above=0, at_step=0)
    result = run_trial(*make_trial(batch_size=4))
    assert (result["status"], result["error"]["class"]) == ("failed", "OutOfMemory")
    assert re.fullmatch(
        r"host memory ran out at step 0 with a single image of 64 px per pass \(tried 4, 2, 1 images; .*\); "
        r"run fewer trials side by side \(cluster.slots\), take smaller images or a narrower model, or a "
        r"machine with more memory",
        result["error"]["message"],
    )


def test_no_step_is_taken_twice_when_the_optimiser_runs_out(
    make_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def apply(self: Learner, step: int) -> None:
        calls.append(step)
        raise MemoryError

    monkeypatch.setattr(Learner, "_apply", apply)
    result = run_trial(*make_trial())
    assert result["error"]["class"] == "OutOfMemory"
    assert result["error"]["message"].startswith(
        "host memory ran out in the optimiser at step 0 (MemoryError)"
    )
    assert calls == [0]


def test_an_image_too_large_to_be_coded_is_named(make_trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(codec: Any, data: bytes, own_hash: bytes, *, name: str) -> Tensor:
        raise RuntimeError(HOST)

    monkeypatch.setattr(bitstream, "decode_image", decode)
    result = run_trial(*make_trial())
    assert result["error"]["class"] == "OutOfMemory"
    assert re.match(
        r"host memory ran out while 10\d\.png of \d+x\d+ px was coded \(\[enforce fail",
        result["error"]["message"],
    )


def test_trials_that_share_a_device_are_added_up() -> None:
    # 2 x 30 GiB and two contexts of 0.5 GiB are 61 GiB.
    gib = 1024.0
    assert memory_warning([30 * gib, 10 * gib], 80 * gib, slots=2, context_mb=512) is None
    assert memory_warning([30 * gib] * 3, 61 * gib, slots=2, context_mb=512) is None
    assert memory_warning([30 * gib] * 3, 60.9 * gib, slots=2, context_mb=512) == (
        "2 trials at a time on one device can need 61.0 GiB of its 60.9 GiB; raise cluster.gpus_per_trial or "
        "lower cluster.slots"
    )
    # What has not ended yet is taken to be as large as the smallest of the largest.
    assert memory_warning([30 * gib], 61 * gib, slots=2, context_mb=512) is None
    assert memory_warning([30 * gib], 60 * gib, slots=2, context_mb=512) is not None
    assert memory_warning([90 * gib], 80 * gib, slots=1) is None
    assert memory_warning([], 80 * gib, slots=4) is None
