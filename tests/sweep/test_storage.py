"""Each node sees the driver's folder and images and runs its code, or is named."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdc.data import ImageSet, resolve_eval
from rdc.errors import UserError
from sweep import storage
from sweep.jobs import InlineExecutor, probe_machine
from sweep.machines import Nodes
from sweep.storage import CHECK_FILE, check_node, write_check

NODE = re.escape(f"node {socket.gethostname()}")


@pytest.fixture
def images(image_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Copies of two evaluation images, with their manifest in the sweep folder."""
    monkeypatch.setenv("RDC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    for path in (image_folders / "eval").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    images: ImageSet = resolve_eval({"eval": str(folder)})
    images.save(tmp_path / "data_eval.json")
    return images


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PATIENCE_S", 0.0)


def test_a_good_node_says_what_it_runs_and_leaves_nothing(tmp_path: Path, images: ImageSet) -> None:
    check = write_check(tmp_path)
    assert check["manifests"] == [str(tmp_path / "data_eval.json")]
    before = sorted(tmp_path.iterdir())
    assert check_node(json.loads(json.dumps(check))) == check["versions"]
    assert set(check["versions"]) == {
        *("python", "torch", "compressai", "rdc", "semantics_version", "git_revision")
    }
    assert sorted(tmp_path.iterdir()) == before


def test_a_node_without_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    check = {**write_check(tmp_path), "folder": str(tmp_path / "gone")}
    message = f"{NODE} does not see {tmp_path}/gone; mount the driver's folder there under this path, or "
    with pytest.raises(UserError, match=message):
        check_node(check)


def test_a_node_with_a_folder_of_its_own_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    check = write_check(tmp_path)
    write_check(tmp_path)  # as on a disk of its own, which an earlier sweep has used
    with pytest.raises(
        UserError, match=f"{NODE} sees another folder than the driver under {tmp_path}; mount"
    ):
        check_node(check)


def test_a_slow_file_server_is_waited_for(tmp_path: Path) -> None:
    check = write_check(tmp_path)
    late = (tmp_path / CHECK_FILE).rename(tmp_path / "late")
    timer = threading.Timer(0.5, lambda: late.rename(tmp_path / CHECK_FILE))
    timer.start()
    check_node(check)
    timer.join()


def test_a_node_that_cannot_write_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = write_check(tmp_path)

    def refuse(path: Path, content: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(storage, "atomic_write_json", refuse)
    with pytest.raises(UserError, match=rf"{NODE} cannot write to {tmp_path} \(Permission denied\)"):
        check_node(check)


@pytest.mark.parametrize(
    ("key", "wanted", "shown"),
    [
        ("torch", "1.0", "torch .*1.0"),
        ("semantics_version", -1, "semantics version .*-1"),
        ("python", "2.7", "python"),
    ],
)
def test_other_versions_are_named(tmp_path: Path, key: str, wanted: Any, shown: str) -> None:
    check = write_check(tmp_path)
    check["versions"][key] = wanted
    with pytest.raises(UserError, match=f"{NODE} has {shown}.*; install the same there"):
        check_node(check)


def damage(path: Path) -> None:
    """Other pixels in a file of the same size."""
    size = path.stat().st_size
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, "lacks 1 of the 2 images of data_eval.json, such as {path}; put them there"),
        (lambda path: path.write_bytes(b""), "lacks 1 of the 2 images of data_eval.json"),
        (damage, "reads other pixels from {path} than the driver"),
    ],
    ids=["absent", "cut", "other"],
)
def test_images_that_a_node_lacks_are_named(
    tmp_path: Path, images: ImageSet, harm: Callable[[Path], None], message: str
) -> None:
    path = Path(min(images.images, key=lambda image: image.file_size).path)
    check = write_check(tmp_path)
    harm(path)
    with pytest.raises(UserError, match=f"{NODE} {message.format(path=path)}"):
        check_node(check)


def test_the_probe_of_a_node_checks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    nodes = Nodes(InlineExecutor(), "sweep.jobs:probe_machine", tmp_path, print)
    (job,) = nodes.first_jobs()
    assert (job.node, job.exclusive) == (InlineExecutor.NODE, True)
    assert probe_machine(job.payload)["device_slug"]
    (tmp_path / CHECK_FILE).unlink()
    with pytest.raises(UserError, match=f"{NODE} sees another folder"):
        probe_machine(job.payload)
