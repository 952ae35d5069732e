"""What a server gets to see: no credentials, no absolute paths, no names of hosts."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import public
from rdc.errors import UserError
from rdc.files import is_intact, sealed
from sweep.sync import main as sync_command
from sweep.tracking import check_tracking
from sweep.tracking.address import (
    artifact_root,
    redact,
    redact_command,
    redact_tree,
    redact_value,
    server_name,
)
from sweep.tracking.public import LONG_BYTES, public_copy, public_text, public_tree
from tests.sweep.synthetic_sweep import SyntheticSweep
from tests.sweep.tracking_fixtures import empty_database as empty_database
from tests.sweep.tracking_fixtures import mirror_of
from tests.sweep.tracking_fixtures import runs as runs
from tests.sweep.tracking_reader import SETTINGS, server_of

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

SECRET = "s3cr3t-w0rd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('File "/srv/bob/rdc/train.py", line 3', 'File "…/train.py", line 3'),
        ("data.train=[/data/a,/data/b] runs_dir=~/runs", "data.train=[…/a,…/b] runs_dir=…/runs"),
        ("sqlite:////srv/bob/mlflow.db is locked", "sqlite:…/mlflow.db is locked"),
        ("postgresql://me:pw@db.example/x", "postgresql://***@HOST/x"),
        (
            "kMAC/px, conv/none/conv, 1/2, a / b, n/a, <b>x</b>",
            "kMAC/px, conv/none/conv, 1/2, a / b, n/a, <b>x</b>",
        ),
        ("http://tracker:5000/base/path", "http://HOST:5000/base/path"),
        ("cluster.address=head:6379 or ray://head:10001", "cluster.address=HOST:6379 or ray://HOST:10001"),
        ("https://r0k.us/kodak and s3://bucket/x", "https://r0k.us/kodak and s3://bucket/x"),
        ("s3:/key:secret@bucket/x", "s3:/***@bucket/x"),
    ],
)
def test_texts_keep_what_is_of_use(text: str, shown: str) -> None:
    assert public_text(text) == shown
    assert public_text(shown) == shown


NAMES = st.text("abcXYZ019._-+@%", min_size=1, max_size=8)


@given(
    before=st.sampled_from(["", "at ", "x=", '"', "(", "a, "]),
    parts=st.lists(NAMES, min_size=2, max_size=5),
    after=st.sampled_from(["", " and", '"', ")", ", line 3", ": no such file"]),
)
def test_of_an_absolute_path_its_last_name_is_left(before: str, parts: list[str], after: str) -> None:
    shown = public_text(f"{before}/{'/'.join(parts)}{after}")
    assert shown == public_text(f"{before}…/{parts[-1]}{after}")
    assert f"/{parts[0]}/" not in shown


def test_this_hosts_name_is_left_out_of_sentences_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "conv.example.org")
    public._host_names.cache_clear()
    try:
        assert public_text("worker on conv.example.org died") == "worker on HOST died"
        # A host may be called as a component is.
        assert public_tree({"transform": "conv", "error": "conv is away"}) == {
            "transform": "conv",
            "error": "HOST is away",
        }
    finally:
        public._host_names.cache_clear()


def test_a_copy_with_a_checksum_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(sealed({"source": "folder /data/kodak", "bpp": 0.1})))
    copy = json.loads(public_copy(path) or "")
    assert (copy["source"], copy["bpp"]) == ("folder …/kodak", 0.1)
    assert is_intact(copy)
    path.write_text(json.dumps(sealed({"bpp": 0.1})))
    assert public_copy(path) is None, "nothing to hide: the file itself goes up"
    assert public_copy(tmp_path / "frontier.png") is None


def test_addresses_of_artifacts_are_kept_and_carry_no_credentials(tmp_path: Path) -> None:
    assert artifact_root("sqlite:///x.db", "s3://bucket/rdc", tmp_path) == "s3://bucket/rdc"
    assert artifact_root("sqlite:///x.db", None, tmp_path) == tmp_path / "mlartifacts"
    with pytest.raises(UserError, match=r"tracking\.artifacts='s3://\*\*\*@bucket/rdc'.*AWS_ACCESS_KEY_ID"):
        check_tracking(
            {**SETTINGS, "uri": "sqlite:///x.db", "artifacts": f"s3://key:{SECRET}@bucket/rdc"}, tmp_path
        )


@pytest.mark.parametrize(
    "text",
    [
        f"https://bucket.s3.example/k?X-Amz-Security-Token={SECRET}&X-Amz-Date=1",
        f"http://tracker/api?api_key={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET} MLFLOW_TRACKING_PASSWORD={SECRET}",
        f"connect(password='{SECRET} and more', host='h')",
        f'{{"db_password": "{SECRET}"}}',
        f"Authorization: Basic {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
        f"ray.init(address='ray://user:{SECRET}@head:10001')",
        f"https://{SECRET}@github.com/x",
        f"postgresql://user:pa/{SECRET}@db/x failed",
        f"postgresql://user:{SECRET}@a/b@db/x failed",
        f"http://user:%40{SECRET}%2F@host is away",
    ],
)
def test_a_secret_is_known_by_its_place(text: str) -> None:
    assert SECRET not in redact(text)
    assert "***" in redact(text)


@given(
    password=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=4).map("Q{}Q".format)
)
def test_no_password_of_a_value_survives_whatever_it_is_made_of(password: str) -> None:
    for uri in (f"postgresql://user:{password}@db.example:5432/x", f"http://user:{password}@host:5000"):
        assert password not in redact_value(uri)
        assert password not in json.dumps(redact_tree({"tracking": {"uri": uri}}))
        assert password not in server_name(uri)
        assert redact_command(["sweep", f"tracking.uri={uri}", "a=b"]).endswith("a=b")
        shown = shlex.split(redact_command(["sweep", f"tracking.uri='{uri}'"]))[1]
        assert password not in shown


@pytest.mark.parametrize(
    "uri", ["http://tracker:5000/base", "s3://bucket/a@b", "sqlite:////data/a@b.db", "a=b@c"]
)
def test_what_is_no_secret_stays(uri: str) -> None:
    assert redact_value(uri) == redact(uri) == uri


def test_long_words_take_no_longer_than_short_ones() -> None:
    """A pattern that begins anew at each letter takes hours, in which nothing else of the driver runs."""
    for word in ("a", "a_", "A-", "/", "/a", "password", "bearer "):
        text = word * (1_000_000 // len(word))
        assert len(public_text(text + "@")) > 0


def test_of_an_endless_log_its_end_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"x\n" * LONG_BYTES + b"MemoryError\n")
    copy = public_copy(path) or ""
    assert copy.startswith(f"[the first {LONG_BYTES + 12:,} bytes are left out]")
    assert copy.endswith("MemoryError\n")
    assert len(copy) < LONG_BYTES + 100


def test_what_a_command_does_not_understand_is_repeated_without_its_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        sync_command(["sync", "runs/x", f"http://user:{SECRET}@tracker"])
    assert "unrecognized arguments: http://***@tracker" in capsys.readouterr().err


def test_redacted_trees() -> None:
    tree = {"a": [f"http://u:{SECRET}@h", 1, None], "b": {"c": (f"x?password={SECRET}",)}}
    assert redact_tree(tree) == {"a": ["http://***@h", 1, None], "b": {"c": ["x?password=***"]}}
    assert redact("nothing to hide") == "nothing to hide"
    named = {"password": SECRET, "api-key": SECRET, "tokens": "64", "token": 3}
    assert redact_tree(named) == public_tree(named) == {**named, "password": "***", "api-key": "***"}
    assert public_tree({"cluster": {"address": "head:6379"}}) == {"cluster": {"address": "HOST:6379"}}


def test_nothing_private_reaches_the_server(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=20)
    result = sweep.write_trial(0, picture=False)
    private: dict[str, Any] = {"source": f"2 images from {runs}/pictures", "name": f"{runs}/pictures"}
    result["data"]["eval"] |= private
    trial = sweep.folder / "trials"
    (trial / sweep.trials[0]["spec_id"] / "result.json").write_text(json.dumps(result))
    failed = sweep.write_trial(1, status="failed")
    failed["error"] = {
        "class": "OSError",
        "message": f"{runs}/x: away; s3://key:{SECRET}@bucket",
        "log": "log.txt",
    }
    folder = trial / sweep.trials[1]["spec_id"]
    (folder / "result.json").write_text(json.dumps(failed))
    (folder / "log.txt").write_text(
        f'File "{runs}/rdc/x.py", line 1\nGET http://u:{SECRET}@h/x?token={SECRET}\n'
    )
    for name in ("train", "val", "eval"):
        images = [{"path": f"{runs}/pictures/1.png", "sha256": "0"}]
        (sweep.folder / f"data_{name}.json").write_text(json.dumps(sealed({**private, "images": images})))
    (sweep.folder / "trials.csv.tmp").write_text(SECRET)
    record = sweep.sweep
    record["command"] = f"python -m sweep runs_dir={runs} cluster.address=ray://u:{SECRET}@head:10001"
    record["config"] |= {
        "runs_dir": str(runs),
        "data": {"train": f"{runs}/pictures", "eval": f"s3:/key:{SECRET}@bucket/x"},
        "cluster": {"address": f"ray://u:{SECRET}@head:10001"},
        "search": {"storage": f"postgresql://u:{SECRET}@db/x"},
    }
    (sweep.folder / "sweep.json").write_text(json.dumps(record))
    mirror_of(sweep, record=record).sync("FINISHED")

    server = server_of(sweep)
    shown = json.dumps(server.content(), ensure_ascii=False)
    for run in server.runs():
        shown += json.dumps([[i.dataset.name, i.dataset.source] for i in run.inputs.dataset_inputs])
        for name in server.artifacts(run):
            path = server.client.download_artifacts(run.info.run_id, name)
            shown += Path(path).read_text(errors="replace")
    assert "…/pictures" in shown
    assert "…/x.py" in shown
    assert SECRET not in shown
    assert str(runs) not in shown
    assert str(runs.parent) not in shown
