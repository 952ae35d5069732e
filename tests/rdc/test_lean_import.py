"""The lean import of compressai gives programs the coder, and later imports of its other parts still work."""

import subprocess
import sys
from types import ModuleType

import pytest

from rdc.lean_import import lean_compressai

PROGRAM = """
import sys
from rdc.lean_import import lean_compressai
lean_compressai()
import rdc.trial
print(sorted(m for m in sys.modules if m in ("compressai.zoo", "compressai.models", "torch_geometric")))
import compressai.models
print(compressai.models.ScaleHyperprior(8, 8).gaussian_conditional.__class__.__module__)
"""


def test_only_what_is_used_is_imported_and_the_rest_can_follow() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "compressai.entropy_models.entropy_models"]


def test_an_import_that_happened_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ModuleType("compressai")
    before.zoo = "what the whole package has"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "compressai", before)
    names = set(vars(before))
    lean_compressai()
    assert sys.modules["compressai"] is before
    assert set(vars(before)) == names
