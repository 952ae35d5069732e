"""What is made of answers that are none of MLflow's, and of refusals: never lost runs, never lost trials."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sweep.tracking.client import (
    Client,
    ForbiddenError,
    GoneError,
    RejectedError,
    ServerError,
)
from sweep.tracking.mirror import Mirror
from tests.sweep.synthetic_sweep import SyntheticSweep
from tests.sweep.tracking_fixtures import empty_database as empty_database
from tests.sweep.tracking_fixtures import mirror_of
from tests.sweep.tracking_fixtures import runs as runs
from tests.sweep.tracking_reader import server_of

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

PAGE = "<html><body><h1>Sign in</h1>" + "x" * 5000 + "</body></html>"


class Answers(ThreadingHTTPServer):
    """Gives every request the same answer."""

    daemon_threads = True
    status, body = 200, ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    do_GET = do_POST = do_PATCH = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    with Answers() as server:
        yield server
        server.shutdown()


def mlflow_error(code: str) -> str:
    return json.dumps({"error_code": code, "message": f"about run x: {code}"})


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (502, PAGE, ServerError, "^it answers HTTP 502$"),
        (500, mlflow_error("INTERNAL_ERROR"), ServerError, "^it answers HTTP 500$"),
        (404, PAGE, ServerError, "it answers HTTP 404, not as MLflow itself does"),
        (400, PAGE, ServerError, "it answers HTTP 400, not as MLflow itself does"),
        (413, PAGE, ServerError, "it answers HTTP 413, not as MLflow itself does"),
        (200, PAGE, ServerError, "it answers something else than JSON"),
        (200, "", ServerError, "it answers with nothing"),
        (404, mlflow_error("RESOURCE_DOES_NOT_EXIST"), GoneError, "about run x"),
        (400, mlflow_error("INVALID_PARAMETER_VALUE"), RejectedError, "about run x"),
        (403, mlflow_error("PERMISSION_DENIED"), ForbiddenError, "about run x"),
        (401, "You are not authenticated.", ServerError, "it answers HTTP 401"),
        (429, mlflow_error("REQUEST_LIMIT_EXCEEDED"), ServerError, "^it answers HTTP 429$"),
    ],
)
def test_only_mlflow_itself_says_that_something_is_gone_or_refused(
    answers: Answers, status: int, body: str, kind: type[ServerError], text: str
) -> None:
    answers.status, answers.body = status, body
    client = Client(answers.uri, 10)
    client.connect()
    with pytest.raises(ServerError, match=text) as caught:
        client.create_run("1", "name", {}, 0)
    assert type(caught.value) is kind
    assert len(str(caught.value)) <= 200
    assert "<html>" not in str(caught.value)


def test_who_may_not_delete_a_run_lets_go_of_it(runs: Path) -> None:
    class MayNotDelete(Client):
        def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
            if method == "delete_run":
                raise ForbiddenError("Permission denied")
            return super()._call(method, *args, **kwargs)

    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    sweep.write_trial(0, picture=False)
    mirror_of(sweep).sync("FINISHED")
    server = server_of(sweep)
    (run,) = server.children().values()
    server.client.create_run(run.info.experiment_id, tags=run.data.tags)
    Mirror(
        MayNotDelete(f"sqlite:///{runs}/mlflow.db", 10),
        experiment="rdc",
        artifacts=runs / "mlartifacts",
        folder=sweep.folder,
        sweep=sweep.sweep,
        say=list[str]().append,
    ).sync("FINISHED")
    trials = [run for run in server.runs() if run.data.tags["kind"] == "trial"]
    assert [found.info.run_id for found in trials] == [run.info.run_id]
    assert sorted(run.info.status for run in server.runs()) == ["FINISHED", "FINISHED", "KILLED"]


def test_a_run_of_the_sweep_that_was_made_too_late_goes(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    mirror = mirror_of(sweep)
    mirror.sync(None)
    server = server_of(sweep)
    parent = server.parent()
    server.client.create_run(parent.info.experiment_id, tags=parent.data.tags)
    mirror.sync("FINISHED")
    assert [(run.info.run_id, run.info.status) for run in server.runs()] == [(parent.info.run_id, "FINISHED")]


def test_what_no_database_stores_holds_nobody_up(runs: Path) -> None:
    """NUL, and half of a character as names of files may have, in an error's text and a label."""
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=20)
    failed = sweep.write_trial(0, status="failed")
    failed["error"] = {"class": "OSError", "message": "cannot read \udcff.png \x00"}
    failed["label"] = sweep.trials[0]["label"] = "a\udcffb\x00"
    trials = sweep.folder / "trials"
    (trials / sweep.trials[0]["spec_id"] / "result.json").write_text(json.dumps(failed))
    sweep.write_trial(1, picture=False)
    mirror_of(sweep).sync("FINISHED")
    children = server_of(sweep).children()
    assert children[sweep.trials[0]["spec_id"]].info.run_name == "a?b?"
    assert "cannot read ?.png ?" in children[sweep.trials[0]["spec_id"]].data.tags["mlflow.note.content"]
    assert children[sweep.trials[1]["spec_id"]].info.status == "FINISHED"


def test_a_sweep_that_was_extended_is_known_by_its_first_parameters(runs: Path) -> None:
    """Parameters of a run cannot change, and without tracking.json they would be logged a second time."""
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    sweep.write_trial(0, picture=False)
    mirror_of(sweep).sync("FINISHED")
    for path in sweep.folder.glob("tracking.json*"):
        path.unlink()
    extended = {**sweep.sweep, "command": "python -m sweep seeds=[0,1]"}
    extended["config"] = {**extended["config"], "lmbda": 0.05}
    mirror_of(sweep, record=extended).sync("FINISHED")
    parent = server_of(sweep).parent()
    assert parent.data.params["lmbda"] == "0.013"
    assert parent.data.tags["command"] == "python -m sweep seeds=[0,1]"
