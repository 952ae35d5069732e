"""The templates of docs/cluster.md: the Slurm script runs, the Kubernetes job is well formed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
import yaml

import conf
from tests.sweep.conftest import ROOT

SLURM, RAYJOB = ROOT / "scripts/sweep.slurm", ROOT / "scripts/sweep-rayjob.yaml"

# Stand-ins for Slurm: everything "on a node" runs here.
STAND_INS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
    "scontrol": 'test "$*" = "show hostnames node[1-2]" && printf "node1\\nnode2\\n"',
    "hostname": "echo 127.0.0.1",
}


def test_the_slurm_script_is_valid_bash() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_slurm_script_runs_a_sweep_on_two_nodes(
    base_overrides: list[str], tmp_path: Path, environment: None
) -> None:
    for name, body in STAND_INS.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    slurm = {
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_ON_NODE": "1",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 3600),
        "RAY_PORT": str(port),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    }
    short = ["budget.steps=12", "budget.ms_ssim=false", "budget.fresh_decode_images=0", "time=false"]
    command = ["bash", str(SLURM), *base_overrides, "seeds=[0,1]", *short]
    done = subprocess.run(command, env={**os.environ, **slurm}, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "2 trials at a time on 2 nodes" in done.stdout
    sweep = json.loads((tmp_path / "runs/tiny/sweep.json").read_text())
    assert 3000 < sweep["config"]["cluster"]["walltime"] <= 3600
    assert len(list(tmp_path.glob("runs/tiny/trials/*/result.json"))) == 2


def test_the_kubernetes_job_is_well_formed_and_its_command_composes() -> None:
    job = yaml.safe_load(RAYJOB.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        claims = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == claims
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    overrides = job["spec"]["entrypoint"].partition("-m sweep ")[2].rstrip('"').split()
    config = conf.compose(overrides)
    assert config["runs_dir"].startswith(container["volumeMounts"][0]["mountPath"])
    assert config["cluster"]["address"] == "auto"
