"""Speed-up by the cache: replies about new pictures, compared with the same replies about a known one.

Starts its own server. One client keeps one connection open and sends pictures of noise at a scale of eight pixels.
Both kinds of requests alternate, so that other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))

from server_process import ServerProcess  # noqa: E402

SIDE_PX = 512
MAX_REPLY_BYTES = 64 << 20
# Names of the replies, and their queries beside the side.
REPLIES = {
    "`layer=res5`": "layer=res5",
    "`layer=res4`": "layer=res4",
    "default layers at 100 `points`": None,
    "default layers, `dtype=float16`": "dtype=float16",
    "default layers": "",
}


class Client:
    """A connection, and a buffer for the replies."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._buffer = memoryview(bytearray(MAX_REPLY_BYTES))

    def ask(self, path: str, body: bytes, content_type: str) -> tuple[float, int, http.client.HTTPResponse]:
        """Seconds until the reply was read, and its bytes."""
        begun = time.perf_counter()
        self._connection.request("POST", path, body, {"Content-Type": content_type})
        reply = self._connection.getresponse()
        length = 0
        while read := reply.readinto(self._buffer[length:]):
            length += read
        seconds = time.perf_counter() - begun
        if reply.status != 200:
            raise SystemExit(f"{path}: {reply.status} {bytes(self._buffer[:length])!r}")
        return seconds, length, reply


class Pictures:
    """Generates different JPEGs of one size."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self._random = numpy.random.default_rng(1)

    def next(self) -> bytes:
        pixels = self._random.integers(0, 256, (self.height // 8, self.width // 8, 3), dtype=numpy.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((self.width, self.height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        return file.getvalue()

    def points(self) -> str:
        columns, rows = numpy.linspace(5, self.width - 6, 10), numpy.linspace(5, self.height - 6, 10)
        return json.dumps([[round(x, 1), round(y, 1)] for y in rows for x in columns], separators=(",", ":"))


def compare(client: Client, pictures: Pictures, path: str, rounds: int) -> tuple[list[float], list[float], int]:
    """Seconds for new pictures, seconds for a known one, and bytes of a reply."""
    known = pictures.next()
    for picture in (known, known, known, pictures.next(), pictures.next()):
        _, length, _ = client.ask(path, picture, "image/jpeg")
    new_s, known_s = [], []
    for _ in range(rounds):
        new_s.append(client.ask(path, pictures.next(), "image/jpeg")[0])
        # The network's weights have displaced the picture from the processor's caches, which slows the first request.
        known_s += [client.ask(path, known, "image/jpeg")[0] for _ in range(8)]
    return new_s, known_s, length


def by_ids(client: Client, pictures: Pictures, rounds: int) -> tuple[float, list[float]]:
    """Seconds of the first match of two ids, which stacks both maps, and of the later ones."""
    path = f"/features?side={SIDE_PX}&points=[[1,1]]&format=npy"
    ids = [client.ask(path, pictures.next(), "image/jpeg")[2].headers["Densecl-Feature-Id"] for _ in range(2)]
    fields = {"source_id": ids[0], "target_id": ids[1], "points": json.loads(pictures.points())}
    seconds = [client.ask("/correspondence", json.dumps(fields).encode(), "application/json")[0] for _ in range(rounds)]
    return seconds[0], seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=ROOT / "models" / "zoo")
    parser.add_argument("--size", default="640x480", help="of the pictures, in pixels")
    parser.add_argument("--rounds", type=int, default=20, help="new pictures for each line")
    arguments = parser.parse_args()
    pictures = Pictures(*map(int, arguments.size.split("x")))
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(arguments.server, arguments.models, Path(folder) / "server.log")
        try:
            client = Client(server.port)
            print("| reply | MB | new, ms | known, ms | replies/s, known over new |")
            print("|---|---|---|---|---|", flush=True)
            for name, query in REPLIES.items():
                query = f"points={pictures.points()}" if query is None else query
                path = f"/features?side={SIDE_PX}&format=npy&{query}"
                new_s, known_s, length = compare(client, pictures, path, arguments.rounds)
                ratio = statistics.mean(new_s) / statistics.mean(known_s)
                times = f"{1e3 * statistics.median(new_s):.1f} | {1e3 * statistics.median(known_s):.2f}"
                print(f"| {name} | {length / 1e6:.1f} | {times} | {ratio:.0f} |", flush=True)
            first, later = by_ids(client, pictures, 15 * arguments.rounds)
            quantiles = statistics.quantiles(later, n=20)
            print(f"\n/correspondence by two ids, 100 points: the first {1e3 * first:.1f} ms; then median "
                  f"{1e3 * statistics.median(later):.1f} ms, 95th percentile {1e3 * quantiles[-1]:.1f} ms")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
