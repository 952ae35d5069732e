"""A secret in every place where a user can put one, and a search for it in all that a sweep leaves behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweep.ui import serve
from tests.sweep.conftest import ROOT
from tests.sweep.tracking_reader import Server, unused_port

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]

SECRET = "s3cr3t-w0rd"
# Passwords that need quoting, in a shell and in an address.
ODD_SECRET = "s3cr3t-w0rd/'x"
# Several commands in one process, since importing takes longer than refusing: prints an exit code for each.
COMMANDS = """
import json, sys
from sweep.__main__ import main
for argv in json.loads(sys.argv[1]):
    sys.argv = argv
    try:
        print("code", main())
    except SystemExit as end:
        print("code", end.code)
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("train/a", "train/b", "train/c", "eval/d"):
        path = tmp_path / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth = np.kron(random.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        Image.fromarray(smooth).save(path)
    return tmp_path / "pictures"


def test_a_secret_is_found_nowhere_afterwards(images: Path, tmp_path: Path) -> None:
    port = unused_port()
    here = tmp_path / "here"
    here.mkdir()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RDC_CACHE": str(tmp_path / "cache"),
        "RDC_DATA": f"{tmp_path}/none?token={SECRET}",
        "RAY_ADDRESS": f"ray://user:{SECRET}@127.0.0.1:1",
        "MLFLOW_TRACKING_URI": f"http://user:{SECRET}@127.0.0.1:{port}",
        "OMP_NUM_THREADS": "1",
    }
    printed = []

    def run_python(*arguments: str) -> int:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=600)
        printed.append(done.stdout + done.stderr)
        return done.returncode

    def run(*arguments: str) -> int:
        return run_python("-m", *arguments)

    sweep = [
        "sweep",
        "name=tiny",
        "budget=smoke",
        "budget.steps=20",
        "budget.precision=fp32",
        f"data.train={images}/train",
        f"data.eval={images}/eval",
        "depth.channels=[8,8,8]",
        "cluster=inline",
        "time=false",
    ]
    good = ["depth.latent_channels=8", f"tracking.uri='http://user:{SECRET}@127.0.0.1:{port}'"]
    # What is refused is said without the secret too.
    refused = [
        f"cluster.address='ray://user:{SECRET}@head:10001'",
        f"data.train='s3://key:{SECRET}@bucket/train'",
        f"tracking.uri='ftp://user:{SECRET}@host/x'",
        f"tracking.artifacts='s3://key:{SECRET}@bucket/x'",
        f"search.storage='redis://user:{SECRET}@host/x'",
        f"tracking.uri='http://tracker?access_token={SECRET}'",
        f'tracking.uri="http://user:{ODD_SECRET}@tracker:5000"',
        f'search.storage="redis://user:{ODD_SECRET}@host/x"',
        f"+token='{SECRET}",  # a quote without its end is no override
    ]
    database = f"sqlite:///{tmp_path}/mlflow.db"
    with serve(database, tmp_path / "artifacts", port, log=tmp_path / "server.log"):
        assert run(*sweep, *good, f"cluster.address='ray://user:{SECRET}@head:10001'") in (0, 1), printed[-1]
        assert run("sweep", "sync", "runs/tiny") == 0, printed[-1]
        shown = json.dumps(Server(database).content(), ensure_ascii=False)
    environment["MLFLOW_TRACKING_URI"] = database
    # Joining a cluster is what asks for its address; the other cluster stands for one that runs.
    on_ray = [argument for argument in sweep if argument != "cluster=inline"]
    commands = [[*sweep, "depth.latent_channels=8", "search=tpe", override] for override in refused[1:]]
    commands += [[*on_ray, "depth.latent_channels=12", refused[0]]]
    commands += [["sweep", "sync", "runs/tiny", "--uri", f"http://user:{SECRET}@127.0.0.1:{port}"]]
    commands += [["sweep", "sync", "runs/tiny", f"http://user:{SECRET}@tracker"]]
    assert run_python("-c", COMMANDS, json.dumps(commands)) == 0, printed[-1]
    codes = [line for line in printed[-1].splitlines() if line.startswith("code ")]
    assert codes == ["code 2"] * len(commands), printed[-1]
    assert run("analysis", "export", "runs/tiny", "-o", "export") == 0, printed[-1]

    assert [text for text in printed if SECRET in text] == []
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
    # What is made to be passed on names no folder and no host either.
    passed_on = [*(tmp_path / "artifacts").rglob("*"), *here.rglob("*.csv"), *here.rglob("export/*")]
    texts = {path: path.read_text(errors="replace") for path in passed_on if path.is_file()}
    assert any(path.name == "data_train.json" for path in texts)
    assert any(path.name == "frontier.csv" for path in texts)
    for private in (str(tmp_path), str(ROOT), str(Path.home()) + "/", socket.gethostname()):
        if len(private) > 3:
            assert [path for path, text in texts.items() if private in text] == [], private
            assert private not in shown
