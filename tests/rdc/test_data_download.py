"""Downloads against a real server on this machine that cuts, lies, hangs or delivers."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdc.data.download import OutOfReachError, download, missing

CONTENT = {f"{n}.bin": np.random.default_rng(n).bytes(200_000) for n in range(3)}
FILES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under any folder; `behaviour` spoils it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = "good"
        self.requests: list[tuple[str, str | None]] = []  # file, Range header
        self.sent_bytes = 0
        self.cuts_left = 0
        self.stalls_left = 0
        self.stop = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/photos"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Keep the output of the tests clean."""

    def do_GET(self) -> None:
        server, name, wanted = self.server, self.path.rpartition("/")[2], self.headers.get("Range")
        server.requests.append((name, wanted))
        if server.behaviour == "hang":
            server.stop.wait(20)
            return
        if server.behaviour == "404":
            self.send_error(404)
            return
        content = b"<html>please log in</html>" if server.behaviour == "portal" else CONTENT[name]
        start = 0
        if wanted is not None and server.behaviour != "no ranges":
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if server.cuts_left:
            server.cuts_left -= 1
            body = body[: len(body) // 2]
        if server.stalls_left:
            server.stalls_left -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            server.stop.wait(20)
            return
        server.sent_bytes += len(body)  # before they leave: the client may look as soon as it has them
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.stop.set()
        running.shutdown()


def test_files_arrive_whole_and_are_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    download(tmp_path, FILES, [server.url], progress=lambda *report: seen.append(report), what="photos")
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == CONTENT
    assert seen[-1] == (3, 3, "photos")
    download(tmp_path, FILES, [server.url])
    assert len(server.requests) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", *FILES]


def test_a_cut_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cuts_left = 2
    download(tmp_path, FILES, [server.url])
    assert missing(tmp_path, FILES) == []
    assert server.requests[:3] == [("0.bin", None), ("0.bin", "bytes=100000-"), ("0.bin", "bytes=150000-")]
    assert server.sent_bytes == sum(map(len, CONTENT.values()))


def test_an_interrupted_download_goes_on_next_time(server: Server, tmp_path: Path) -> None:
    server.cuts_left = 99
    with pytest.raises(OutOfReachError, match=r"0\.bin: the connection was cut"):
        download(tmp_path, FILES, [server.url])
    server.cuts_left = 0
    have = (tmp_path / "0.bin.part").stat().st_size
    assert have > 0
    server.requests.clear()
    download(tmp_path, FILES, [server.url])
    assert server.requests[0] == ("0.bin", f"bytes={have}-")
    assert missing(tmp_path, FILES) == []


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.behaviour = "no ranges"
    server.cuts_left = 1
    download(tmp_path, FILES, [server.url])
    assert missing(tmp_path, FILES) == []


@pytest.mark.parametrize("left", [b"rubbish", CONTENT["0.bin"], CONTENT["0.bin"] + b"more"])
def test_whatever_was_left_of_an_earlier_try_is_checked(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "0.bin.part").write_bytes(left)
    download(tmp_path, FILES, [server.url])
    assert missing(tmp_path, FILES) == []


def test_wrong_content_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.behaviour = "portal"
    with pytest.raises(OutOfReachError, match=r"0\.bin: is not the expected file \(SHA-256 [0-9a-f]{64}\)"):
        download(tmp_path, FILES, [server.url])
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_damaged_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    download(tmp_path, FILES, [server.url])
    (tmp_path / "1.bin").write_bytes(b"damaged")
    assert missing(tmp_path, FILES) == ["1.bin"]
    download(tmp_path, FILES, [server.url])
    assert missing(tmp_path, FILES) == []
    assert server.requests[3:] == [("1.bin", None)]


def test_second_address_is_tried(server: Server, tmp_path: Path) -> None:
    download(tmp_path, FILES, ["http://127.0.0.1:9", server.url])
    assert missing(tmp_path, FILES) == []


def test_missing_page_is_named(server: Server, tmp_path: Path) -> None:
    server.behaviour = "404"
    with pytest.raises(OutOfReachError, match=r"/photos/0\.bin: .*Not Found"):
        download(tmp_path, FILES, [server.url])


def test_silent_network_is_given_up_in_time(server: Server, tmp_path: Path) -> None:
    server.behaviour = "hang"
    start = time.monotonic()
    with pytest.raises(OutOfReachError, match=r"no answer within 0\.5 s|timed out"):
        download(tmp_path, FILES, [server.url, server.url], decide_s=0.5)
    assert time.monotonic() - start < 2


def test_one_silent_address_leaves_time_for_the_other(server: Server, tmp_path: Path) -> None:
    server.behaviour = "hang"
    with Server() as good:
        threading.Thread(target=good.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        download(tmp_path, FILES, [server.url, good.url], decide_s=2.0)
        good.shutdown()
    assert missing(tmp_path, FILES) == []
    assert len(server.requests) == 1


def test_refused_connection_is_decided_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    start = time.monotonic()
    with pytest.raises(OutOfReachError, match="Connection refused"):
        download(tmp_path, FILES, ["http://127.0.0.1:9"])
    assert time.monotonic() - start < 2


def test_stalled_connection_is_a_cut(server: Server, tmp_path: Path) -> None:
    server.stalls_left = 1
    download(tmp_path, FILES, [server.url], stall_s=0.3)
    assert missing(tmp_path, FILES) == []
    assert server.requests[1] == ("0.bin", "bytes=100000-")


def test_files_that_arrived_stay_when_the_network_goes(server: Server, tmp_path: Path) -> None:
    download(tmp_path, {"0.bin": FILES["0.bin"]}, [server.url])
    server.behaviour = "hang"
    with pytest.raises(OutOfReachError):
        download(tmp_path, FILES, [server.url], decide_s=0.3)
    assert missing(tmp_path, FILES) == ["1.bin", "2.bin"]


def test_two_at_a_time_fetch_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=download, args=(tmp_path, FILES, [server.url])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing(tmp_path, FILES) == []
    assert len(server.requests) == 3
