"""Memory that ran out: on the device or on the host, and what a person can do about it. Imports no torch."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Place = Literal["cuda", "host"]

WAY_OUT = (
    "run fewer trials side by side (cluster.slots), take smaller images or a narrower model, or a machine "
    "with more memory"
)

# torch has no class for a CPU that is out of memory, nor do the libraries beneath it for a device that is.
_HOST_TEXTS = (
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "could not create a memory object",
)
_CUDA_TEXTS = ("CUDA out of memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


class OutOfMemory(RuntimeError):
    """Memory ran out and nothing smaller is left to try; the text says what was tried and the way out."""


def where_memory_ran_out(error: BaseException) -> Place | None:
    """Which memory the error is about; None if it is another kind of error, or final already."""
    if isinstance(error, OutOfMemory):
        return None
    torch = sys.modules.get("torch")  # an error of its class has imported it
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "cuda"
    if isinstance(error, MemoryError):
        return "host"
    if isinstance(error, RuntimeError):
        text = str(error)
        if any(known in text for known in _CUDA_TEXTS):
            return "cuda"
        # oneDNN says only this when it gets no memory for its compiled code.
        if any(known in text for known in _HOST_TEXTS) or text == "could not create a primitive":
            return "host"
    return None


def first_words(error: BaseException) -> str:
    """The beginning of what a library said, for the record; it can run over many lines."""
    return (" ".join(str(error).split()) or type(error).__name__)[:80]


def in_words(error: BaseException) -> tuple[str, str]:
    """(class, one line) with which a result names an error; a lack of memory is always called OutOfMemory."""
    place = where_memory_ran_out(error)
    if place is not None:
        return OutOfMemory.__name__, f"{place} memory ran out ({first_words(error)}); {WAY_OUT}"
    return type(error).__name__, " ".join(str(error).split())


def give_back(device: torch.device) -> None:
    """Let other processes have the memory of a GPU that this one keeps and does not use."""
    if device.type == "cuda":
        import torch

        gc.collect()
        torch.cuda.empty_cache()
