"""Photos that come inside installed Python packages: something real to train on without a network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# (package as installed, module, file). Evaluation and training share neither photos nor scenes.
EVALUATION = (
    ("scikit-learn", "sklearn", "datasets/images/china.jpg"),
    ("scikit-learn", "sklearn", "datasets/images/flower.jpg"),
    ("scikit-image", "skimage", "data/astronaut.png"),
    ("scikit-image", "skimage", "data/chelsea.png"),
    ("scikit-image", "skimage", "data/coffee.png"),
)
TRAINING = (
    ("scikit-image", "skimage", "data/brick.png"),
    ("scikit-image", "skimage", "data/camera.png"),
    ("scikit-image", "skimage", "data/coins.png"),
    ("scikit-image", "skimage", "data/grass.png"),
    ("scikit-image", "skimage", "data/gravel.png"),
    ("scikit-image", "skimage", "data/ihc.png"),
    ("scikit-image", "skimage", "data/motorcycle_left.png"),
    ("scikit-image", "skimage", "data/rocket.jpg"),
    ("matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)

Photos = tuple[tuple[str, str, str], ...]


def find(photos: Photos) -> tuple[list[Path], list[str]]:
    """Those that are installed, and the names of the packages they come from."""
    files, packages = [], set()
    for package, module, name in photos:
        folder = _folder(module)
        if folder is not None and (folder / name).is_file():
            files.append(folder / name)
            packages.add(package)
    return files, sorted(packages)


def _folder(module: str) -> Path | None:
    """Where a top-level package lies, without running it: importing these takes seconds."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]) if locations else None
