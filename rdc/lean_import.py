"""Import compressai's entropy models and coder without the rest of that package."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import warnings
from typing import Any


def lean_compressai() -> None:
    """For programs of this project, before they first import from compressai; elsewhere it does nothing.

    Its __init__ imports all that it has, torch_geometric included: over five seconds of CPU in every process.
    Submodules import as always afterwards, each by its full name (`import compressai.zoo`).
    """
    # compressai scripts a function on import; nothing that a user of these programs could change.
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    if "compressai" in sys.modules:
        return
    spec = importlib.machinery.PathFinder.find_spec("compressai")
    if spec is None:
        return  # whoever needs it says so
    package: Any = importlib.util.module_from_spec(spec)
    package.get_entropy_coder = lambda: "ans"
    package.available_entropy_coders = lambda: ["ans"]
    sys.modules["compressai"] = package
