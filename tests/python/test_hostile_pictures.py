"""Pictures made to cost memory or time: each answered as it is documented, soon, and without memory to speak of."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from hostile_pictures import CORRUPT, FINE, HostileFile, every_hostile_file
from picture_files import PictureFile, every_file
from server_process import Reply, ServerProcess

# A body is held while it arrives and while it is decoded, and the allocator keeps some of what it got.
ALLOWED_BYTES = 96 << 20
# The widest samples of all and RGB beside them.
BYTES_PER_PIXEL = 20
# Generous for a debug build on a busy machine; a bomb takes minutes.
ALLOWED_S = 10.0
STATUSES = {200, 413, 415, 422}
SEED = 20_26


def peak_bytes(server: ServerProcess) -> int:
    """The most memory that the server held since `forget_peak`."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def forget_peak(server: ServerProcess) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


def ask(server: ServerProcess, content: bytes) -> Reply:
    """The smallest reply that makes the server decode a picture."""
    reply = server.post("/features?side=32&points=[[0,0]]", content, "application/octet-stream")
    assert reply.status in STATUSES, reply.body
    if reply.status != FINE:
        assert reply.json()["detail"]
        assert "gave up" not in reply.json()["detail"], "the decoder panicked"
    return reply


@pytest.mark.parametrize("file", every_hostile_file(), ids=lambda file: file.name)
def test_it_is_answered_soon_and_costs_little(server: ServerProcess, file: HostileFile):
    forget_peak(server)
    before = server.resident_bytes()
    started = time.monotonic()
    reply = ask(server, file.content)
    assert time.monotonic() - started < ALLOWED_S
    assert reply.status == file.status, reply.body
    assert peak_bytes(server) - before < ALLOWED_BYTES + BYTES_PER_PIXEL * file.pixels


def one_of_each_kind() -> list[PictureFile]:
    """Files whose readers differ."""
    kinds = (
        "jpeg-RGB-90-420", "jpeg-RGB-90-420-progressive", "jpeg-cmyk-adobe", "jpeg-restarts", "png-rgb",
        "png-palette-4-clear-interlaced", "png-animated", "gif-16-interlaced", "gif-animated", "webp-80", "webp-80-alpha",
        "webp-lossless-0", "webp-animated", "bmp-palette", "bmp-8-run-lengths", "bmp-16-masks", "tiff-rgb-lzw",
        "tiff-palette-packbits", "tiff-group4", "tiff-jpeg-RGB-75", "tiff-tiles-deflate", "tiff-planes-deflate-big-endian",
        "tiff-float-predictor-3", "tiff-bigtiff-deflate",
    )  # fmt: skip
    files = {file.name: file for file in every_file()}
    return [files[kind] for kind in kinds]


KINDS = one_of_each_kind()


@pytest.mark.parametrize("file", KINDS, ids=lambda file: file.name)
def test_a_file_cut_off_anywhere_is_an_answer(server: ServerProcess, file: PictureFile):
    length = len(file.content)
    # Every place in the header, and a sample of the others.
    cuts = [*range(1, min(48, length)), *range(48, length, max(1, length // 40))]
    statuses = [ask(server, file.content[:cut]).status for cut in cuts]
    # A part of the pixels is no picture.
    assert ask(server, file.content[: length // 4]).status == CORRUPT
    assert statuses.count(FINE) <= len(cuts) // 4, json.dumps(dict(zip(cuts, statuses)))


@pytest.mark.parametrize("file", KINDS, ids=lambda file: file.name)
def test_flipped_bits_are_an_answer(server: ServerProcess, file: PictureFile):
    generator = random.Random(f"{SEED} {file.name}")
    for _ in range(40):
        content = bytearray(file.content)
        # Headers are short and say the most.
        end = len(content) if generator.random() < 0.5 else min(128, len(content))
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(end)] ^= 1 << generator.randrange(8)
        ask(server, bytes(content))
    assert server.get("/readyz").status == 200
