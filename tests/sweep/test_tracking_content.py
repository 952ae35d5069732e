"""Addresses, parameters, descriptions and the prepared view, as plain values."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.families import MODEL_MARKERS, TRANSFORM_COLOURS, family_styles
from rdc.errors import UserError
from rdc.spec import component_names
from sweep.tracking import check_tracking, content, notes, view
from sweep.tracking.address import redact, server_name, tracking_uri
from sweep.tracking.progress import Ended, Progress
from sweep.ui import addresses, backend_uri, free_port, tracked_folder
from tests.sweep.synthetic_sweep import SyntheticSweep

MLFLOW = {
    "name": "mlflow",
    "uri": None,
    "experiment": "rdc",
    "artifacts": None,
    "request_timeout_s": 10.0,
    "finish_timeout_s": 60.0,
}


def test_without_an_address_the_runs_go_to_a_file_beside_the_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert tracking_uri(None, tmp_path) == "http://tracker:5000"
    assert tracking_uri("sqlite:////data/m.db", tmp_path) == "sqlite:////data/m.db"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"uri": "file:./mlruns"}, "tracking.uri='file:./mlruns' .* is nothing that MLflow can write to"),
        ({"uri": "ftp://u:pw@host/x"}, r"tracking.uri='ftp://\*\*\*@host/x'"),
        ({"uri": "http://u:pw/1@host"}, r"tracking.uri='http://\*\*\*@host' .* is no address of a server"),
        ({"uri": "http://u:pw#1@host"}, r"tracking.uri='http://\*\*\*@host' .* write / as %2F"),
        ({"uri": "http://host?token=pw"}, r"tracking.uri='http://host\?token=\*\*\*' .* without \? and #"),
        ({"uri": "http://[host"}, r"tracking.uri='http://\[host' .* is no address of a server"),
        ({"uri": "http://host:port"}, r"tracking.uri='http://host:port' .* is no address of a server"),
        ({"experimnt": "x"}, "tracking.experimnt: there is no such key"),
        ({"finish_timeout_s": -1.0}, "tracking.finish_timeout_s=-1.0: must be greater than 0"),
        ({"name": "wandb"}, "tracking.name='wandb': input should be 'mlflow'"),
    ],
)
def test_wrong_settings_are_one_clear_line(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text) as caught:
        check_tracking({**MLFLOW, **changes}, tmp_path)
    assert "\n" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_tracking_none_needs_nothing(tmp_path: Path) -> None:
    assert check_tracking({"name": "none"}, tmp_path) is None


PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/'\""), min_size=4)


@given(password=PASSWORDS, scheme=st.sampled_from(["http", "https", "postgresql+psycopg2", "mysql"]))
def test_no_password_survives(password: str, scheme: str) -> None:
    secret = f"Q{password}Q"
    uri = f"{scheme}://user:{secret}@host.example:5000/path"
    assert secret not in redact(f"request to {uri} failed")
    assert "user:" not in redact(uri)


def test_a_servers_name_keeps_what_tells_it_from_others() -> None:
    assert server_name("http://user:pw@host:5000/base?token=x") == "http://host:5000/base"
    assert server_name("sqlite:////data/m.db") == "sqlite:////data/m.db"
    assert redact("postgresql://h/db?user=me&password=pw&x=1") == "postgresql://h/db?user=me&password=***&x=1"


def test_params_are_short_and_few() -> None:
    spec = {
        "model": {"transform": {"name": "conv", "kernel": 5}, "depth": {"channels": [64, 96, 128]}},
        "recipe": {"steps": 500, "note": "x" * 900},
        "warm_start": None,
        "lmbda": 0.013,
        "many": {f"k{i:03d}": i for i in range(200)},
    }
    found = content.params(spec)
    assert len(found) == 100
    assert found["transform"] == "conv"
    assert found["transform.kernel"] == "5"
    assert found["depth.channels"] == "64-96-128"
    assert found["lmbda"] == "0.013"
    assert len(found["note"]) == 500
    assert "warm_start" not in found


def test_the_sweeps_params_leave_the_trackers_address_out() -> None:
    config = {"lmbda": 0.013, "depth": {"channels": [8]}, "tracking": {"uri": "http://user:pw@host"}}
    sweep = {"config": config}
    assert content.sweep_params(sweep) == {"lmbda": "0.013"}
    tags = content.command_tags({**sweep, "command": "python -m sweep tracking.uri=http://user:pw@host"})
    assert tags["command"] == "python -m sweep tracking.uri=http://***@HOST"


def test_events_and_other_keys_are_no_curve() -> None:
    assert content.curve_points({"event": "resume", "step": 4, "train/loss": 1.0}) == []
    for damaged in (
        {"step": None, "t": 1},
        {"step": 4},
        {"step": 1e30, "t": 1},
        {"step": 4, "t": float("nan")},
    ):
        assert content.curve_points({**damaged, "train/loss": 1.0}) == []
    row = {"step": 4, "t": 12.5, "train/loss": 1.0, "eta_s": 3.0, "val/bpp": None, "train/flag": True}
    assert content.curve_points(row) == [content.Point("train/loss", 1.0, 4, 12500)]


def test_progress_counts_trials_in_the_order_of_their_ends(tmp_path: Path) -> None:
    sweep = SyntheticSweep(tmp_path / "s", trials=4)
    statuses = ["ok", "rate_mismatch", "ok", "ok"]
    results = [sweep.write_result(i, status=s, picture=False) for i, s in enumerate(statuses)]
    progress = Progress()
    for number in (3, 0, 1, 2):
        progress.put(str(number), Ended.of(results[number], ended_at=100.0 + number))
    points = progress.points(after_step=0)
    best = [(p.step, p.value) for p in points if p.key == "sweep/best_rd_loss"]
    losses = [result["evaluation"]["rd_loss"] for result in results]
    # The second trial is the better one of the first two, and does not count.
    assert losses[1] < losses[0]
    assert best == [(1, losses[0]), (2, losses[0]), (3, losses[2]), (4, losses[3])]
    assert [p.value for p in points if p.key == "sweep/trials_without_valid_point"] == [0, 1, 1, 1]


def test_a_sweep_over_several_lmbdas_has_no_best_rd_loss(tmp_path: Path) -> None:
    sweep = SyntheticSweep(tmp_path / "s", trials=2)
    progress = Progress()
    for number in range(2):
        result = sweep.write_result(number, picture=False)
        result["spec"] = {**result["spec"], "lmbda": 0.01 * (number + 1)}
        progress.put(str(number), Ended.of(result, ended_at=number))
    assert "sweep/best_rd_loss" not in {p.key for p in progress.points(after_step=0)}
    assert progress.best is None
    assert "Lowest rd_loss" not in notes.sweep_note(2, 2, None, [])


OUTCOMES = st.tuples(
    st.integers(0, 5), st.integers(0, 20), st.sampled_from(["ok", "failed"]), st.floats(0.5, 2), st.booleans()
)


@given(changes=st.lists(OUTCOMES, max_size=25))
def test_progress_kept_up_to_date_is_progress_added_up_anew(changes: list[tuple[Any, ...]]) -> None:
    kept, now = Progress(), dict[str, Ended]()
    for trial, ended_at, status, rd_loss, is_drop in changes:
        kept.points(after_step=0)  # what is added up so far must not stay when its trials change
        now.pop(str(trial), None)
        kept.drop(str(trial))
        if not is_drop:
            loss = rd_loss if status == "ok" else None
            now[str(trial)] = Ended(status, "a", float(ended_at), 0.01 * (trial // 4), loss)
            kept.put(str(trial), now[str(trial)])
    anew = Progress()
    for spec_id, ended in now.items():
        anew.put(spec_id, ended)
    assert kept.points(after_step=0) == anew.points(after_step=0)
    assert kept.points(after_step=2) == [p for p in anew.points(after_step=0) if p.step > 2]
    assert (kept.valid, len(kept)) == (anew.valid, len(anew))
    valid = {s: ended.rd_loss for s, ended in now.items() if ended.rd_loss is not None}
    if kept.best is not None:
        assert valid[kept.best] == min(valid.values())
    else:
        assert not valid or len({ended.lmbda for ended in now.values()}) > 1


def test_descriptions_begin_with_the_verdict(tmp_path: Path) -> None:
    sweep = SyntheticSweep(tmp_path / "s", trials=2)
    result = sweep.write_result(0, picture=False)
    first = notes.trial_note(result).splitlines()[0]
    assert first.startswith("**Finished.** rd_loss 1.4627, 7.3 kFLOPs/px to decode, 0.474 bpp, 29.32 dB PSNR")
    on = content.ranking_tags({"on_frontier": "True"}, {})
    off = content.ranking_tags({"on_frontier": "False", "dominated_by": "a1"}, {"a1": "small"})
    out = content.ranking_tags({"on_frontier": "False", "off_frontier_reason": "another budget"}, {})
    assert [tags["frontier"] for tags in (on, off, out)] == ["yes", "no", "n/a"]
    assert notes.trial_note(result, on).startswith("**On the frontier.**")
    assert notes.trial_note(result, off).startswith("**Dominated by small.**")
    assert notes.trial_note(result, out).startswith("**Not compared with the others.**")
    bad = sweep.write_result(1, status="rate_mismatch", picture=False)
    assert notes.trial_note(bad).startswith("**Not valid (rate mismatch): stays off the frontier.**")


def test_families_have_the_figures_colours_and_every_component_its_own_look() -> None:
    for family in ("conv/scale_hyperprior/conv", "elic/charm/swint", "mine/charm/conv"):
        assert content.family_colour(family) == family_styles([family])[family][0]
    assert set(component_names("transform")) == set(TRANSFORM_COLOURS)
    assert set(component_names("entropy_model")) == {model.partition("/")[0] for model in MODEL_MARKERS}


def unpacked(value: str) -> dict[str, Any]:
    state = json.loads(value)["state"]
    assert state.startswith("deflate;")
    return dict(json.loads(zlib.decompress(base64.b64decode(state.removeprefix("deflate;")))))


def test_the_view_holds_order_columns_and_charts() -> None:
    value = view.tag_value("frontier", "frontier-abc123", 1.5)
    assert len(value) < 5000, "older servers take no longer tag of an experiment"
    state = unpacked(value)
    assert state["searchFilter"] == "tags.sweep = 'frontier-abc123'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`eval/rd_loss`", True)
    assert state["columnOrder"] == state["selectedColumns"]
    assert state["selectedColumns"][1:4] == [
        "tags.`frontier`",
        "metrics.`eval/rd_loss`",
        "metrics.`cost/kflop_per_px_dec`",
    ]
    first = state["compareRunCharts"][0]
    assert (first["type"], first["xaxis"]["key"], first["yaxis"]["key"]) == (
        "SCATTER",
        "cost/kflop_per_px_dec",
        "eval/rd_loss",
    )
    assert "PARALLEL" in {card["type"] for card in state["compareRunCharts"]}
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {card["metricSectionId"] for card in state["compareRunCharts"]} <= sections


def test_the_view_leaves_out_what_no_run_has() -> None:
    state = unpacked(view.tag_value("s", "s-1", 0.0, absent=[view.SAVING_PCT, view.DECODE_MS]))
    assert view.SAVING_PCT not in json.dumps(state)
    assert view.DECODE_MS not in json.dumps(state)


def test_the_view_shows_the_parameters_in_which_trials_differ(tmp_path: Path) -> None:
    trials = SyntheticSweep(tmp_path / "s", trials=14).trials
    varied = content.varied_params(trials)
    assert varied == [
        "entropy_model",
        "hyper_transform.channels",
        "depth.channels",
        "depth.latent_channels",
        "depth.layers",
    ]
    trials[0]["spec"]["model"]["transform"] = {"name": "swint", "window": 8}
    assert content.varied_params(trials)[:2] == ["transform", "entropy_model"], (
        "a window is one transform's own"
    )
    assert content.varied_params([]) == content.varied_params(trials[:1]) == []
    state = unpacked(view.tag_value("s", "s-1", 0.0, varied=varied))
    assert state["selectedColumns"][-5:] == [*(f"params.`{name}`" for name in varied[:4]), "tags.`status`"]
    (parallel,) = [card for card in state["compareRunCharts"] if card["type"] == "PARALLEL"]
    assert parallel["selectedParams"] == varied[:4]


def test_over_several_lmbdas_the_rd_plane_comes_first() -> None:
    state = unpacked(view.tag_value("s", "s-1", 0.0, several_lmbdas=True))
    assert state["compareRunCharts"][0]["yaxis"]["key"] == "eval/psnr_db"
    assert "params.`lmbda`" in state["selectedColumns"]


# The command that opens the interface


def tracked(runs: Path, name: str, server: str) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    state = {"experiment_id": "1", "run_id": "ab" * 16, "view_key": f"{name}-abab", "trials": {"x": {}}}
    (folder / "tracking.json").write_text(json.dumps({"latest": server, "servers": {server: state}}))
    return folder


def test_no_tracked_sweep_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no sweep in this folder was logged to MLflow; run one first"):
        tracked_folder(tmp_path, None)


def test_the_sweep_logged_last_is_opened_unless_another_is_named(tmp_path: Path) -> None:
    import os

    older = tracked(tmp_path, "older", "sqlite:////x.db")
    newer = tracked(tmp_path, "newer", "sqlite:////x.db")
    os.utime(older / "tracking.json", (1, 1))
    assert tracked_folder(tmp_path, None) == newer
    assert tracked_folder(tmp_path, "older") == older
    with pytest.raises(
        UserError, match="--sweep other: no sweep of that name was logged; known: newer, older"
    ):
        tracked_folder(tmp_path, "other")


def test_a_database_that_is_gone_says_how_to_rebuild_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.db: this database is gone; the command of sweep s builds it"):
        backend_uri(f"sqlite:///{tmp_path}/gone.db", tmp_path / "s")


def test_a_password_comes_from_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:pw@db/mlflow")
    assert backend_uri("postgresql://db/mlflow", tmp_path / "s") == "postgresql://me:pw@db/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:pw@other/mlflow")
    with pytest.raises(UserError, match="was logged to postgresql://db/mlflow: set MLFLOW_TRACKING_URI"):
        backend_uri("postgresql://db/mlflow", tmp_path / "s")


def test_addresses_open_the_model_training_view() -> None:
    state = {"experiment_id": "7", "run_id": "ab", "view_key": "s-1", "trials": {"a": {}, "b": {}}}
    lines = addresses("http://127.0.0.1:5000", "s", state).splitlines()
    assert lines[0] == "sweep s, 2 trials:"
    assert lines[1].endswith(
        "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"
        "&compareRunsMode=CHART&viewStateShareKey=s-1"
    )
    assert "compareRunsMode=TABLE" in lines[2]


def test_a_taken_port_is_passed_over() -> None:
    import socket

    first = free_port()
    with socket.create_server(("127.0.0.1", first)):
        assert free_port() > first


def test_a_trial_says_its_stage_from_its_begin_to_its_end() -> None:
    planned = {"spec_id": "a" * 12, "stage": "tuned", "spec": {}}
    assert content.plan_tags(planned)["stage"] == "tuned"
    assert content.result_tags({"status": "ok", "stage": "tuned"})["stage"] == "tuned"
    assert "stage" not in content.plan_tags({**planned, "stage": None})
