"""Before anything is trained: does every node see the sweep's folder and images, and run the same code?"""

from __future__ import annotations

import os
import platform
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import atomic_write_json, read_json
from sweep.plan import DATA_FILES

CHECK_FILE = "node_check.json"
# File servers show other machines a new file after a few seconds.
_PATIENCE_S = 15.0
_POLL_S = 0.25
# Each of them changes results, or how files are read.
_VERSIONS = ("python", "torch", "compressai", "rdc", "semantics_version", "git_revision")


def write_check(folder: Path) -> dict[str, Any]:
    """Leave a token in the sweep folder; returns what `check_node` needs on every node.

    Images are checked if their manifests are in the folder already.
    """
    from rdc.machine import environment, resolve_device

    token = secrets.token_hex(8)
    atomic_write_json(folder / CHECK_FILE, {"token": token})
    return {
        "folder": str(folder),
        "token": token,
        "versions": _versions(environment(resolve_device("cpu"))),
        "manifests": [str(folder / name) for name in DATA_FILES.values() if (folder / name).exists()],
    }


def check_node(check: Mapping[str, Any]) -> dict[str, Any]:
    """On a node: UserError naming it, and what to do, if trials cannot run there; returns its versions."""
    from rdc.machine import environment, resolve_device

    node = f"node {socket.gethostname()}"
    _check_folder(node, Path(check["folder"]), check["token"])
    versions = _versions(environment(resolve_device("cpu")))
    _check_versions(node, versions, check["versions"])
    for manifest in check["manifests"]:
        _check_images(node, Path(manifest))
    return versions


def _versions(environment: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: environment.get(key) for key in _VERSIONS}
    return {**found, "python": ".".join(platform.python_version_tuple()[:2])}


def _check_folder(node: str, folder: Path, token: str) -> None:
    """Read what the driver has written, and write something ourselves."""
    give_up_at = time.monotonic() + _PATIENCE_S
    while _token(folder / CHECK_FILE) != token:
        if time.monotonic() >= give_up_at:
            seen = "sees another folder than the driver under" if folder.is_dir() else "does not see"
            raise UserError(
                f"{node} {seen} {folder}; mount the driver's folder there under this path, or choose a "
                "runs_dir= that all nodes share"
            )
        time.sleep(_POLL_S)
    ours = folder / f"{CHECK_FILE}.{socket.gethostname()}.{os.getpid()}"
    try:
        atomic_write_json(ours, {"token": token})
        same = _token(ours) == token
        ours.unlink()
    except OSError as error:
        first = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise UserError(
            f"{node} cannot write to {folder} ({first.strerror}); permit it there for this user"
        ) from None
    if not same:
        raise UserError(f"{node} does not read back what it writes to {folder}; check that file system")


def _token(path: Path) -> Any:
    try:
        content = read_json(path)
    except UserError:
        return None
    return content.get("token") if isinstance(content, dict) else None


def _check_versions(node: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    different = [key for key in _VERSIONS if found[key] != wanted[key]]
    if different:
        theirs = ", ".join(f"{key.replace('_', ' ')} {found[key]}" for key in different)
        ours = ", ".join(str(wanted[key]) for key in different)
        raise UserError(f"{node} has {theirs}, the driver has {ours}; install the same there (make setup)")


def _check_images(node: str, manifest: Path) -> None:
    """All files are there with their sizes, and one of them shows the right pixels."""
    from rdc.data import ImageSet, pixel_sha256, read_rgb

    images = ImageSet.load(manifest).images
    absent = [image.path for image in images if _size(image.path) != image.file_size]
    if absent:
        raise UserError(
            f"{node} lacks {len(absent)} of the {len(images)} images of {manifest.name}, such as "
            f"{absent[0]}; put them there under the same path, or on storage that all nodes share"
        )
    smallest = min(images, key=lambda image: image.file_size)
    if pixel_sha256(read_rgb(smallest.path)) != smallest.sha256:
        raise UserError(
            f"{node} reads other pixels from {smallest.path} than the driver; copy the images anew"
        )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
