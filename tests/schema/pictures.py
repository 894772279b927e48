"""Tells schemathesis what a picture is, so that some of its requests get as far as the model."""

import struct
import zlib

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation

SIDES_PX = st.integers(min_value=1, max_value=80)
RAW_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "application/octet-stream")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """A grey ramp."""
    rows = b"".join(b"\0" + bytes((x * 7 + y * 3) % 256 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PICTURES = st.builds(png, SIDES_PX, SIDES_PX)
# Mostly whole ones; also what is none, and what ends early.
FILES = st.one_of(PICTURES, PICTURES, PICTURES.map(lambda data: data[: len(data) // 2]), st.binary(max_size=64))

schemathesis.openapi.format("binary", FILES)
for media_type in RAW_TYPES:
    schemathesis.openapi.media_type(media_type, FILES)

# What a schema cannot say: that two pictures belong together, which models there are, and where points may lie.
UNLIKELY = ("source_id", "target_id", "mask", "points", "model", "version", "layer", "side")


@schemathesis.hook
def map_case(_context: schemathesis.HookContext, case: schemathesis.Case) -> schemathesis.Case:
    """Makes of every other well-formed form for /correspondence one about two pictures."""
    if (
        case.path == "/correspondence"
        and case.media_type == "multipart/form-data"
        and case.meta is not None
        and case.meta.generation.mode.is_positive
        and isinstance(case.body, dict)
        and zlib.crc32(repr(case.body).encode()) % 2 == 0
    ):
        kept = {name: value for name, value in case.body.items() if name not in UNLIKELY and value is not None}
        case.body = kept | {"source": png(64, 48), "target": png(48, 64)}
        # It takes changed bodies with bytes for wrong ones, as it cannot compare them with the document.
        case._meta.clear_dirty(ParameterLocation.BODY)
    return case
