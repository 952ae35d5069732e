"""A Ray cluster on this machine, whose nodes come and go as a test says. As a program it is that cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.sweep.conftest import wait_until


class OwnCluster:
    """A head of one CPU in a process of its own, and at most one more node at a time that can be removed.

    environment: of all its workers.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.address = self._answer()

    def add(self, **environment: str) -> None:
        """One more node of one CPU. environment: what its workers have besides."""
        self._ask("add", environment)

    def kill(self) -> None:
        """SIGKILL to the node that was added last."""
        self._ask("kill")

    def tell(self) -> None:
        """SIGTERM to it."""
        self._ask("tell")

    def kill_head(self) -> None:
        """SIGKILL to the head; the cluster is of no more use."""
        self._ask("kill head")

    def shutdown(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _ask(self, *order: object) -> None:
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Driver:
    """A sweep as a subprocess, with its output in a file."""

    def __init__(self, command: list[str], output: Path, environment: dict[str, str]) -> None:
        self._output = output
        with open(output, "w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)

    def wait_for(self, condition: Callable[[], bool], *, limit_s: float = 200) -> None:
        """Until the condition holds, while the driver lives."""
        wait_until(lambda: condition() or self.process.poll() is not None, limit_s=limit_s)
        assert condition(), self.output

    def says(self, text: str) -> None:
        self.wait_for(lambda: text in self.output)

    def ends_well(self) -> str:
        """Its whole output."""
        code = self.process.wait(timeout=250)
        assert code == 0, self.output
        return self.output

    @property
    def output(self) -> str:
        return self._output.read_text()


def steps_of(folder: Path) -> list[int]:
    """How far each begun trial has got."""
    logs = [path.read_text().splitlines() for path in folder.glob("trials/*/metrics.jsonl")]
    return [max((json.loads(line).get("step", 0) for line in log), default=0) for log in logs]


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    print(cluster.address, flush=True)
    for line in sys.stdin:
        order, *arguments = json.loads(line)
        if order == "add":
            last = cluster.add_node(num_cpus=1, env_vars=arguments[0])
        elif order == "kill head":
            assert cluster.head_node is not None, "it was started above"
            cluster.remove_node(cluster.head_node, allow_graceful=False)
        else:
            cluster.remove_node(last, allow_graceful=order == "tell")
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
