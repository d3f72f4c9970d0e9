"""A load of HTTP requests from one process: so many connections, each asking again and again.

Run as a program it asks for a while and writes what it saw as JSON; the standard library only, so
that it starts at once and takes little of the machine from the server.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What to ask, as one line of JSON on the command line."""

    port: int
    method: str
    path: str
    body: str
    num_connections: int
    seconds: float

    def request(self) -> bytes:
        body = self.body.encode()
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: localhost:{self.port}"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again; connects anew where the server closes."""

    def __init__(self, load: Load, latencies: list[float], until: float) -> None:
        self.load, self.latencies, self.until = load, latencies, until
        self.request = load.request()
        self.received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask()

    def _ask(self) -> None:
        self.received = b""
        self.asked_at = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        fields = head.lower().split(b"\r\n")
        length = next(int(f.partition(b":")[2]) for f in fields if f.startswith(b"content-length:"))
        if len(body) < length:
            return
        now = time.perf_counter()
        self.latencies.append(now - self.asked_at)
        if not fields[0].startswith(b"http/1.1 200"):
            self._end(RuntimeError(f"{self.load.path} answers {fields[0].decode()}"))
        elif now >= self.until:
            self._end()
        elif b"connection: close" not in fields:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _end(self, error: Exception | None = None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)
        self.transport.close()


async def _ask_until(load: Load, latencies: list[float], until: float) -> None:
    loop = asyncio.get_running_loop()
    while time.perf_counter() < until:
        _, connection = await loop.create_connection(
            lambda: _Connection(load, latencies, until), "127.0.0.1", load.port
        )
        await connection.done


async def ask(load: Load) -> list[float]:
    """Seconds of each request. Raises RuntimeError where one is not answered with 200."""
    latencies: list[float] = []
    until = time.perf_counter() + load.seconds
    await asyncio.gather(*(_ask_until(load, latencies, until) for _ in range(load.num_connections)))
    return latencies


if __name__ == "__main__":
    given = Load(**json.loads(sys.argv[1]))
    started = time.perf_counter()
    found = asyncio.run(ask(given))
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - started, "latencies": found}))
