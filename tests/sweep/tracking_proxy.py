"""A proxy before a tracking server that now and then answers itself, or keeps an answer to itself."""

from __future__ import annotations

import http.client
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = b"<html><h1>Bad gateway</h1></html>"
# Instead of asking the server; and after it has done what it was asked.
FAULTS = ("400", "404", "502", "200", "drop before", "drop after", "502 after")


class FaultyProxy(ThreadingHTTPServer):
    """share: of the requests that meet a fault, drawn by the seed."""

    daemon_threads = True

    def __init__(self, port: int, *, share: float, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = port
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        self.faults: list[str] = []
        self._share, self._random = share, random.Random(seed)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def fault(self) -> str:
        if self._random.random() >= self._share:
            return ""
        self.faults.append(self._random.choice(FAULTS))
        return self.faults[-1]


class _Forward(BaseHTTPRequestHandler):
    server: FaultyProxy

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault()
        status, answer = (int(fault), PAGE) if fault.isdigit() else (502, PAGE)
        if not fault or fault.endswith("after"):
            connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
            headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            if not fault:
                status, answer = response.status, response.read()
            connection.close()
        if fault.startswith("drop"):
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _forward

    def log_message(self, format: str, *args: Any) -> None:
        pass
