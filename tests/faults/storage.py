"""What stands between the product and its S3 server, and for a while fails, hangs or cuts short."""

import threading
import time
from collections.abc import Set
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np

from tests.faults.plan import STORAGE_FAULTS

FAILS, HANGS, TRUNCATES = STORAGE_FAULTS
UNAVAILABLE = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
LONGEST_HANG_SECONDS = 60.0  # longer than any client waits
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


class FaultyStorage:
    """A proxy to an S3 server on this machine; in order until `begin` is called.

    `storage_fails` answers 503, half of the time to what the server has done nevertheless;
    `storage_hangs` answers nothing, for longer than anybody waits; `storage_truncates` sends half
    of an object, half of the time as if that were all of it.
    """

    def __init__(self, port: int, *, seed: int) -> None:
        self.num_spoilt = dict.fromkeys(STORAGE_FAULTS, 0)  # answers, by fault
        self._upstream = port
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._fault, self._until, self._is_met = "", 0.0, True
        self._ended = threading.Event()
        handler = type("Handler", (_Handler,), {"storage": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False  # one that hangs is not waited for
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def begin(self, fault: str, seconds: float) -> None:
        """Be bad in one way for so long, and until somebody has met it, instead of any other."""
        with self._lock:
            self._fault, self._until, self._is_met = fault, time.monotonic() + seconds, False

    def end(self) -> bool:
        """Be in order again; returns whether somebody has met what was begun."""
        with self._lock:
            was_met, self._fault, self._is_met = self._is_met, "", True
            return was_met

    @property
    def is_met(self) -> bool:
        """Whether the last fault has spoilt an answer."""
        with self._lock:
            return self._is_met

    def draw(self) -> tuple[str, bool]:
        """The fault of this moment, if any, and which of its two kinds."""
        with self._lock:
            is_over = self._is_met and time.monotonic() > self._until
            return "" if is_over else self._fault, bool(self._rng.random() < 0.5)

    def note(self, fault: str) -> None:
        with self._lock:
            self.num_spoilt[fault] += 1
            self._is_met = True

    def hang(self) -> None:
        self._ended.wait(LONGEST_HANG_SECONDS)

    def upstream(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self._upstream, timeout=LONGEST_HANG_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()


def remove_folders(s3: Any, names: Set[str]) -> int:
    """Delete what lies in a folder of such a name, in every bucket; returns how many objects."""
    keys = [
        (bucket["Name"], each["Key"])
        for bucket in s3.list_buckets()["Buckets"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"])
        for each in page.get("Contents", ())
        if names & set(each["Key"].split("/")[:-1])
    ]
    for bucket, key in keys:
        s3.delete_object(Bucket=bucket, Key=key)
    return len(keys)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body go separately: 40 ms otherwise
    storage: FaultyStorage

    def _pass_on(self) -> None:
        if "Transfer-Encoding" in self.headers:
            raise NotImplementedError("a body without a length: boto3 sends none here")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault, is_first_kind = self.storage.draw()
        if fault == HANGS:
            self.storage.note(fault)
            self.storage.hang()
            self.close_connection = True
            return
        if fault == FAILS and is_first_kind:
            self.storage.note(fault)
            self._answer(503, [], UNAVAILABLE)
            return
        upstream = self.storage.upstream()
        try:
            # As it came, with the host that the signature names.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if fault == FAILS:
            self.storage.note(fault)
            self._answer(503, [], UNAVAILABLE)
        elif fault == TRUNCATES and self.command == "GET" and len(content) > 1:
            self.storage.note(fault)
            half = content[: len(content) // 2]
            self._answer_as(answer, half, length=len(half) if is_first_kind else len(content))
            self.close_connection = True
        else:
            self._answer_as(answer, content, length=None)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on

    def _answer_as(self, answer: HTTPResponse, content: bytes, *, length: int | None) -> None:
        headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in HOP_BY_HOP]
        if self.command == "HEAD":
            length = int(answer.getheader("Content-Length", "0"))
        self._answer(answer.status, headers, content, length=length)

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        *,
        length: int | None = None,
    ) -> None:
        try:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if status not in (204, 304):
                self.send_header("Content-Length", str(len(content) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except OSError:  # a client that was killed
            self.close_connection = True

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # as above
            pass

    def log_message(self, *args: Any) -> None:
        pass
