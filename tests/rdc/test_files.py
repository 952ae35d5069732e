"""Files are whole or absent, and locks exclude."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rdc.errors import UserError
from rdc.files import (
    append_jsonl,
    atomic_link,
    atomic_write_json,
    atomic_write_text,
    locked,
    read_json,
    read_jsonl,
)


def test_a_written_file_is_read_back_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "value.json"
    atomic_write_json(path, {"a": [1, 2.5, None]})
    atomic_write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert os.listdir(path.parent) == ["value.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    atomic_write_text(path, "old")
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic_write_json(path, {"a": float("inf")})
    path_that_is_a_folder = tmp_path / "folder"
    path_that_is_a_folder.mkdir()
    with pytest.raises(IsADirectoryError):
        atomic_write_text(path_that_is_a_folder, "text")
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["folder", "value.json"]


def test_files_get_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_reader_beside_a_writer_sees_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    atomic_write_json(path, [0] * 5000)
    written = threading.Event()

    def write() -> None:
        for number in range(1, 40):
            atomic_write_json(path, [number] * 5000)
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not written.is_set():
        values = read_json(path)
        assert len(values) == 5000
        assert len(set(values)) == 1
    writer.join()


def test_damaged_and_missing_json_are_named(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    with pytest.raises(UserError, match=r"value\.json: there is no such file"):
        read_json(path)
    path.write_text('{"a": 1')
    with pytest.raises(UserError, match=r"value\.json: is not valid JSON \(.*\); delete it"):
        read_json(path)


def test_jsonl_leaves_out_the_line_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_jsonl(path) == []
    append_jsonl(path, {"a": 1}, {"a": 2})
    with open(path, "a") as file:
        file.write('{"a": ')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\nnonsense\n')
    with pytest.raises(UserError, match=r"rows\.jsonl: line 2 is not JSON"):
        read_jsonl(path)


def test_a_lock_excludes_other_processes_until_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "sweep" / "driver.lock"
    code = (
        "import sys, time; from rdc.files import locked\n"
        "with locked(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"driver\.lock: another process holds this lock"):
            locked(path, timeout_s=0).__enter__()
    finally:
        holder.kill()
        holder.communicate()
    with locked(path, timeout_s=0):
        pass
    with locked(path, timeout_s=0):
        pass


def test_json_rows_never_hold_what_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        append_jsonl(tmp_path / "rows.jsonl", {"psnr_db": float("inf")})


def test_a_link_is_the_file_itself_and_replaces_what_was_there(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "new" / "path"
    source.write_text("weights")
    for _ in range(2):  # a repeated command finds its own link
        atomic_link(source, path)
        assert path.samefile(source)
    other = tmp_path / "other"
    other.write_text("others")
    atomic_link(other, path)
    assert path.read_text() == "others"
    assert source.read_text() == "weights"
    assert [found.name for found in path.parent.iterdir()] == ["path"]


def test_a_link_is_a_copy_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "source").write_text("weights")
    atomic_link(tmp_path / "source", tmp_path / "path")
    assert (tmp_path / "path").read_text() == "weights"
    assert not (tmp_path / "path").samefile(tmp_path / "source")
    with pytest.raises(FileNotFoundError):
        atomic_link(tmp_path / "nowhere", tmp_path / "path")
    assert (tmp_path / "path").read_text() == "weights"
