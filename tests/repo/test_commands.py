"""The commands that the documents show exist: make targets, modules, options, groups and files."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from conf import compose

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
TARGETS = ["setup", "frontier", "test", "test-full", "lint", "type", "bench", "faults", "ui", "lock", "clean"]

COMMANDS_OF_SWEEP = ("status", "stop", "sync")
ELSEWHERE = ("ray", "sbatch", "export", "mlflow", "optuna-dashboard")  # commands of clusters and servers


def help_text() -> str:
    return subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def shown_commands(document: Path) -> list[str]:
    """Lines of the fenced shell blocks, without comments, with continued lines joined."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", document.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


COMMANDS = [(path.name, line) for path in DOCUMENTS for line in shown_commands(path)]


def test_make_help_lists_every_target_and_is_the_default() -> None:
    text = help_text()
    for target in TARGETS:
        assert re.search(rf"^  {target} +\S", text, flags=re.MULTILINE), f"make help does not list {target}"
    default = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert default == text


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_shown_commands_exist(document: str, line: str) -> None:
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if words[0] == "make":
        target = next(word for word in words[1:] if "=" not in word)
        assert re.search(rf"^  {target} ", help_text(), flags=re.MULTILINE), f"{document}: no target {target}"
    elif words[0].endswith("python") and words[1] == "-m":
        module = ROOT / words[2].replace(".", "/")
        known = module.with_suffix(".py").exists() or (module / "__main__.py").exists()
        assert known or words[2] in {"pytest", "ruff", "pip"}, f"{document}: no module {words[2]}"
        if words[2] in {"analysis", "rdc"}:
            importlib.import_module(f"{words[2]}.__main__")._parser().parse_args(words[3:])
        elif words[2] == "sweep" and words[3] in COMMANDS_OF_SWEEP:
            importlib.import_module(f"sweep.{words[3]}")._parser().parse_args(words[4:])
        elif words[2] == "sweep":
            compose([word for word in words[3:] if not word.startswith("-") and "NAME" not in word])
    else:
        assert (
            words[0] in {"git", "pip", *ELSEWHERE}
            or words[:2] == ["python", "-c"]
            or (ROOT / words[0]).is_file()
        ), f"{document}: {line}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text())
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []
