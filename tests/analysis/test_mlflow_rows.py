"""A sweep that was logged to MLflow reads back as the same table; written with MLflow's own client."""

from pathlib import Path

import pytest
from synthetic_results import grid, result, write_sweep

from analysis import schema
from analysis.errors import AnalysisError
from analysis.frontier import report, write_report
from analysis.load import load, read

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Sweep folder, tracking URI, and the id of the parent run that holds the sweep's trials."""
    base = tmp_path_factory.mktemp("mlflow")
    gated = result(128, gating={"name": "ecg"}, open_share=0.1, penalty=-0.5)
    trials = [*grid(), gated, result(40, status="failed")]
    folder = write_sweep(base / "s", trials)
    uri = f"sqlite:///{base}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("rdc", artifact_location=str(base / "artifacts"))
    parent = client.create_run(experiment).info.run_id
    by_arch = load(folder).set_index("spec_id")
    for tree in trials:
        run = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
        for key, value in schema.metrics(by_arch.loc[tree["spec_id"]].to_dict()).items():
            client.log_metric(run, key, value)
        client.log_artifact(run, str(folder / "trials" / tree["spec_id"] / "result.json"))
    return folder, uri, parent


def test_a_parent_run_gives_the_sweeps_frontier_digit_for_digit(
    logged: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, uri, parent = logged
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = report(read(f"mlflow:{parent}"), tmp_path, print_table=False, draw=False)
    wanted = write_report(folder, print_table=False, draw=False)
    numbers = [c.name for c in schema.COLUMNS if c.metric]
    assert len(wanted.frontier) > 2
    for name in ["spec_id", *numbers]:
        ours, theirs = (table.frontier[name].reset_index(drop=True) for table in (found, wanted))
        assert ours.equals(theirs), name  # unlike ==, a missing number equals a missing number
    gated = found.frontier[found.frontier["gating"] == "ecg"]
    of_gates = [c.name for c in schema.COLUMNS if (c.metric or "").startswith("gating/")]
    assert (len(gated), len(of_gates)) == (1, 20)
    assert gated[of_gates].notna().all(axis=None)
    assert "a device that the source does not name" in found.text
    assert "FloatingPointError" in found.text


def test_a_trials_own_run_and_a_bare_id_are_sources_too(
    logged: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, uri, parent = logged
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert len(load(parent)) == 14
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_run(parent).info.experiment_id
    child = client.search_runs([experiment], "metrics.`eval/bpp` > 0", max_results=1)[0]
    assert load(child.info.run_id)["bpp"].tolist() == [child.data.metrics["eval/bpp"]]


def test_runs_without_a_result_are_named(
    logged: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, uri, parent = logged
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    bare = client.create_run(client.get_run(parent).info.experiment_id).info.run_id
    with pytest.raises(AnalysisError, match=f"MLflow run {bare} at sqlite:.* holds no trial to read"):
        read(bare)
    with pytest.raises(AnalysisError, match=r"MLflow run 0+ at sqlite:.*not found; set MLFLOW_TRACKING_URI"):
        read("mlflow:" + "0" * 32)


def test_no_database_is_created_and_no_password_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(AnalysisError, match=r"there is no database .*/runs/mlflow\.db"):
        read("mlflow:" + "0" * 32)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(AnalysisError, match=r"at http://\*\*\*@127\.0\.0\.1:9: ") as caught:
        read("mlflow:" + "0" * 32)
    assert "secret" not in str(caught.value)
