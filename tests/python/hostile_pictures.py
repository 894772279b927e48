"""Picture files that are made to cost memory or time, or to make a decoder stumble; and what the server says to each.

Each is small, says something absurd, and is otherwise as its format wants it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Iterator

import numpy
from PIL import Image

from picture_files import bmp, palette, png_chunk, rgb, saved, tifffile_bytes

MIB = 1 << 20
FINE, UNSUPPORTED, CORRUPT, TOO_LARGE = 200, 415, 422, 413


@dataclass(frozen=True)
class HostileFile:
    name: str
    content: bytes
    status: int
    # Of a picture that claims to be large, and within the limit: its pixels may be paid for.
    pixels: int = 0


def every_hostile_file() -> list[HostileFile]:
    """All of them, names unique."""
    makers = (pngs, gifs, jpegs, tiffs, bmps, webps)
    return [file for maker in makers for file in maker()]


def bomb(length: int) -> bytes:
    """Zeros, about a thousand times as many as the bytes that say so."""
    compressor = zlib.compressobj(9)
    chunks = [compressor.compress(bytes(MIB)) for _ in range(length // MIB)]
    return b"".join(chunks) + compressor.flush()


def png_of(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    everything = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in everything)


def png_header(width: int, height: int, depth: int = 8, color: int = 2, interlace: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)


def pngs() -> Iterator[HostileFile]:
    small = png_header(64, 64)
    black = (b"IDAT", zlib.compress(bytes(64 * (1 + 3 * 64))))
    huge = bomb(1024 * MIB)
    # What inflates beyond the picture is passed over, as libpng does, and so are profiles and texts.
    yield HostileFile("png-inflates-beyond", png_of(small, (b"IDAT", huge)), FINE)
    yield HostileFile("png-profile", png_of(small, (b"iCCP", b"p\0\0" + huge), black), FINE)
    yield HostileFile("png-text", png_of(small, (b"zTXt", b"t\0\0" + huge), black), FINE)
    yield HostileFile("png-international-text", png_of(small, (b"iTXt", b"t\0\1\0\0\0" + huge), black), FINE)
    yield HostileFile("png-many-chunks", png_of(small, *[(b"tEXt", b"a\0b")] * 100_000, black), FINE)
    yield HostileFile("png-many-frames", png_of(small, (b"acTL", struct.pack(">II", 1 << 30, 0)), black), FINE)
    yield HostileFile("png-huge-sides", png_of(png_header(1 << 31, 1 << 31), black), TOO_LARGE)
    yield HostileFile("png-longest-row", png_of(png_header(50_000_000, 1, 16, 6), black), TOO_LARGE)
    yield HostileFile("png-largest-interlaced", png_of(png_header(7000, 7000, 16, 6, 1), black), CORRUPT, 49_000_000)
    yield HostileFile("png-chunk-beyond-the-file", png_of(small)[:-12] + b"\x7f\xff\xff\xffiCCP", CORRUPT)
    yield HostileFile("png-no-pixels", png_of(small), CORRUPT)
    yield HostileFile("png-no-palette", png_of(png_header(64, 64, 8, 3), black), CORRUPT)
    many = [(b"zTXt", b"Raw profile type exif\0\0" + huge), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + huge)] * 8
    yield HostileFile("png-profiles-as-text", png_of(small, *many, black), FINE)
    frame = struct.pack(">IIIIIHHBB", 0, 1 << 30, 1 << 30, 0, 0, 1, 1, 0, 0)
    animated = (b"acTL", struct.pack(">II", 1, 0)), (b"fcTL", frame)
    yield HostileFile("png-frame-beyond-the-picture", png_of(small, *animated, black), CORRUPT)


def gifs() -> Iterator[HostileFile]:
    content = saved(palette(16), format="GIF")
    header, frame = content[: content.index(b",\0\0\0\0")], content[content.index(b",\0\0\0\0") : -1]
    yield HostileFile("gif-ten-thousand-frames", header + frame * 10_000 + b";", FINE)
    beyond = bytearray(content)
    beyond[len(header) + 1 : len(header) + 3] = b"\xff\xff"
    # The canvas grows with the frame.
    yield HostileFile("gif-frame-beyond-the-canvas", bytes(beyond), FINE, 4_200_000)
    largest = bytearray(content)
    largest[len(header) + 5 : len(header) + 9] = b"\xff\xff\xff\xff"
    yield HostileFile("gif-frame-larger-than-the-canvas", bytes(largest), TOO_LARGE)
    canvas = bytearray(content)
    canvas[6:10] = b"\xff\xff\xff\xff"
    yield HostileFile("gif-huge-canvas", bytes(canvas), TOO_LARGE)
    yield HostileFile("gif-no-frame", header + b";", CORRUPT)
    comments = b"!\xfe" + b"\xff" * 256 * 10_000 + b"\0"
    yield HostileFile("gif-empty-blocks", header + b"!\xfe\0" * 100_000 + frame + b";", FINE)
    yield HostileFile("gif-blocks-of-a-byte", header + b"!\xfe" + b"\1a" * 4 * MIB + b"\0" + frame + b";", CORRUPT)
    yield HostileFile("gif-long-comment", header + comments + frame + b";", FINE)


def jpeg_segments(content: bytes) -> list[bytes]:
    """A JPEG without its first and last markers, split before every segment; scans keep their data."""
    position, segments = 2, []
    while content[position + 1] != 0xD9:
        end = position + 2 + struct.unpack(">H", content[position + 2 : position + 4])[0]
        if content[position + 1] == 0xDA:
            while not (content[end] == 0xFF and content[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
        segments.append(content[position:end])
        position = end
    return segments


def jpeg_sized(content: bytes, width: int, height: int) -> bytes:
    """The same JPEG, said to be of another size."""
    place = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2")) + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


def jpegs() -> Iterator[HostileFile]:
    for progressive in (False, True):
        suffix = "-progressive" * progressive
        content = saved(rgb(), format="JPEG", progressive=progressive)
        yield HostileFile(f"jpeg-65535{suffix}", jpeg_sized(content, 65_535, 65_535), TOO_LARGE)
        # Within the limit: the rest is grey, as in every viewer, and costs what a picture of that size costs.
        yield HostileFile(f"jpeg-sliver{suffix}", jpeg_sized(content, 65_535, 700), FINE, 45_900_000)
        yield HostileFile(f"jpeg-sliver-cut-off{suffix}", jpeg_sized(content, 65_535, 700)[:-2], CORRUPT)
        yield HostileFile(f"jpeg-no-height{suffix}", jpeg_sized(content, 64, 0), CORRUPT)
    segments = jpeg_segments(jpeg_sized(saved(rgb(), format="JPEG", progressive=True), 6000, 6000))
    repeated = b"".join(segments + segments[-2:] * 5000)
    yield HostileFile("jpeg-five-thousand-scans", b"\xff\xd8" + repeated + b"\xff\xd9", UNSUPPORTED)
    baseline = jpeg_segments(saved(rgb(), format="JPEG"))
    profile = b"\xff\xe2\xff\xffICC_PROFILE\0\1\1" + bytes(65_533 - 14)
    yield HostileFile("jpeg-many-profiles", b"\xff\xd8" + profile * 200 + b"".join(baseline) + b"\xff\xd9", FINE)
    # Without an end marker the data are walked through, in which many scans send nothing for many blocks.
    scans = jpeg_segments(jpeg_sized(saved(rgb(), format="JPEG", progressive=True), 6000, 6000))
    yield HostileFile("jpeg-many-scans-and-no-end", b"\xff\xd8" + b"".join(scans + scans[-2:] * 20), CORRUPT, 36_000_000)
    exif = b"\xff\xe1\0\x0aExif\0\0MM"
    yield HostileFile("jpeg-many-exif-segments", b"\xff\xd8" + exif * 4000 + b"".join(baseline) + b"\xff\xd9", FINE)
    yield HostileFile("jpeg-no-scan", b"\xff\xd8" + b"".join(baseline[:-1]) + b"\xff\xd9", CORRUPT)
    yield HostileFile("jpeg-all-fill-bytes", b"\xff\xd8" + b"\xff" * 4 * MIB, CORRUPT)
    yield HostileFile("jpeg-sampling", changed(saved(rgb(), format="JPEG"), b"\xff\xc0", 11, b"\xff"), CORRUPT)


def changed(content: bytes, mark: bytes, place: int, value: bytes) -> bytes:
    start = content.index(mark) + place
    return content[:start] + value + content[start + len(value) :]


@dataclass(frozen=True)
class Entry:
    """An entry of a TIFF directory: a tag, its values as LONGs, or what else is written for them."""

    tag: int
    values: tuple[int, ...]
    count: int | None = None


def tiff(*entries: Entry, data: bytes = b"", next_directory: int = 0) -> bytes:
    """A little-endian TIFF: a header, `data` from byte 8, values, one directory."""
    body, table = data, b""
    for entry in sorted(entries, key=lambda entry: entry.tag):
        count = len(entry.values) if entry.count is None else entry.count
        value = struct.pack(f"<{len(entry.values)}I", *entry.values)
        if len(entry.values) > 1:
            value, body = struct.pack("<I", 8 + len(body)), body + value
        table += struct.pack("<HHI", entry.tag, 4, count) + value
    directory = struct.pack("<H", len(entries)) + table + struct.pack("<I", next_directory)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


def tiff_tags(width: int = 64, height: int = 64, **changes: int | tuple[int, ...]) -> list[Entry]:
    """Grey of 8 bits in one strip of raw bytes, but for the changes."""
    names = {
        "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offsets": 273,
        "samples": 277, "rows": 278, "counts": 279, "planar": 284, "predictor": 317, "tile_width": 322,
        "tile_height": 323, "tile_offsets": 324, "tile_counts": 325, "format": 339,
    }  # fmt: skip
    tags: dict = {"width": width, "height": height, "bits": 8, "photometric": 1, "rows": height}
    tags |= {"offsets": 8, "counts": width * height} | changes
    values = {name: value if isinstance(value, tuple) else (value,) for name, value in tags.items()}
    return [Entry(names[name], value) for name, value in values.items()]


def tiffs() -> Iterator[HostileFile]:
    pixels = bytes(64 * 64)
    most = (1 << 32) - 1
    unsupported = ("samples", "no-samples", "bits", "compression", "photometric", "predictor")
    for name, changes in {
        "no-rows": {"rows": 0},
        "offset": {"offsets": most},
        "count": {"counts": most},
        "no-bytes": {"counts": 0},
        "samples": {"samples": 65_535},
        "no-samples": {"samples": 0},
        "bits": {"bits": 255},
        "compression": {"compression": 65_000},
        "photometric": {"photometric": 77},
        "predictor": {"predictor": 3, "compression": 5},
        "tile-size": {"tile_width": most, "tile_height": most, "tile_offsets": 8, "tile_counts": 4096},
        "no-tile-size": {"tile_width": 0, "tile_height": 0, "tile_offsets": 8, "tile_counts": 4096},
        "too-few-strips": {"rows": 1},
        "too-few-tiles": {"tile_width": 16, "tile_height": 16, "tile_offsets": 8, "tile_counts": 256},
    }.items():
        # Wrong lengths do not matter where the rows have a length of their own.
        status = {"tile-size": TOO_LARGE, "count": FINE, "no-bytes": FINE} | dict.fromkeys(unsupported, UNSUPPORTED)
        yield HostileFile(f"tiff-{name}", tiff(*tiff_tags(**changes), data=pixels), status.get(name, CORRUPT))
    yield HostileFile("tiff-huge-sides", tiff(*tiff_tags(most, most, counts=64), data=pixels), TOO_LARGE)
    yield HostileFile("tiff-rows-beyond", tiff(*tiff_tags(rows=most), data=pixels), FINE)
    yield HostileFile("tiff-directory-loop", tiff(*tiff_tags(), data=pixels, next_directory=8 + 4096), FINE)
    yield HostileFile("tiff-directory-in-its-header", b"II*\0\0\0\0\0" + pixels, CORRUPT)
    yield HostileFile("tiff-directory-outside", b"II*\0\xff\xff\xff\xff" + pixels, CORRUPT)
    yield HostileFile("tiff-many-entries", b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65_535), CORRUPT)
    yield HostileFile("bigtiff-many-entries", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 60), CORRUPT)
    counted = [entry for entry in tiff_tags() if entry.tag != 273] + [Entry(273, (8,), count=most)]
    yield HostileFile("tiff-count-of-values", tiff(*counted, data=pixels), CORRUPT)
    rows, height = bomb(64 * MIB), 20_000
    strips = {"rows": 1, "offsets": (8,) * height, "counts": (len(rows),) * height, "compression": 8}
    yield HostileFile("tiff-strips-share-a-bomb", tiff(*tiff_tags(1, height, **strips), data=rows), CORRUPT)
    # Blocks of deflate that hold nothing, for every strip again.
    nothing = b"\x78\x01" + b"\0\0\0\xff\xff" * 200_000
    strips["counts"] = (len(nothing),) * height
    yield HostileFile("tiff-strips-of-nothing", tiff(*tiff_tags(1, height, **strips), data=nothing), CORRUPT)
    fax = {"compression": 3, "photometric": 0, "bits": 1, "counts": 4 * MIB}
    yield HostileFile("tiff-fax-of-zeros", tiff(*tiff_tags(2048, 16_384, **fax), data=bytes(4 * MIB)), CORRUPT, 34_000_000)
    lengths = {"rows": 1, "offsets": tuple(range(8, 8 + height)), "counts": (0,) * height, "compression": 8}
    yield HostileFile("tiff-strips-inside-one-another", tiff(*tiff_tags(1, height, **lengths), data=rows), CORRUPT)
    yield HostileFile("tiff-deflate-beyond", tiff(*tiff_tags(compression=8, counts=len(rows)), data=rows), FINE)
    jpeg = jpeg_sized(saved(rgb(), format="JPEG"), 16_000, 16_000)
    inside = tiff_tags(compression=7, photometric=6, samples=3, counts=len(jpeg))
    yield HostileFile("tiff-jpeg-larger-than-its-strip", tiff(*inside, data=jpeg), CORRUPT)
    tiles = {"tile_width": 1 << 20, "tile_height": 64, "tile_offsets": 8, "tile_counts": len(rows), "compression": 8}
    yield HostileFile("tiff-tile-far-beyond", tiff(*tiff_tags(**tiles), data=rows), FINE)
    tiles["tile_width"] = 1 << 22
    yield HostileFile("tiff-tile-farther-beyond", tiff(*tiff_tags(**tiles), data=rows), CORRUPT)
    largest = tiff_tags(7000, 7000, format=3, bits=64, compression=8, counts=len(rows))
    yield HostileFile("tiff-largest", tiff(*largest, data=rows), CORRUPT, 49_000_000)
    good = tifffile_bytes(numpy.asarray(rgb()), photometric="rgb", rowsperstrip=1, compression="zlib")
    yield HostileFile("tiff-cut-off", good[:-40], CORRUPT)


def bmps() -> Iterator[HostileFile]:
    data, colors = bytes(64 * 64), bytes(1024)
    good = bmp(64, 64, 8, data, colors=colors)
    yield HostileFile("bmp-huge-sides", bmp(65_000, 65_000, 8, data, colors=colors), TOO_LARGE)
    yield HostileFile("bmp-negative-width", good[:18] + b"\xff\xff\xff\xff" + good[22:], TOO_LARGE)
    yield HostileFile("bmp-lowest-height", good[:22] + b"\0\0\0\x80" + good[26:], TOO_LARGE)
    yield HostileFile("bmp-no-width", bmp(0, 64, 8, data, colors=colors), CORRUPT)
    yield HostileFile("bmp-bits", bmp(64, 64, 77, data, colors=colors), CORRUPT)
    yield HostileFile("bmp-colors", good[:46] + b"\xff\xff\xff\xff" + good[50:], CORRUPT)
    yield HostileFile("bmp-offset", good[:10] + b"\xff\xff\xff\xff" + good[14:], CORRUPT)
    yield HostileFile("bmp-largest", bmp(50_000_000, 1, 24, data), CORRUPT, 50_000_000)
    yield HostileFile("bmp-largest-run-lengths", bmp(7000, 7000, 8, b"\0\1", colors=colors, compression=1), FINE, 49_000_000)
    yield HostileFile("bmp-compression", bmp(64, 64, 8, data, colors=colors, compression=99), CORRUPT)
    yield HostileFile("bmp-jpeg-inside", bmp(64, 64, 24, data, compression=4), UNSUPPORTED)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webps() -> Iterator[HostileFile]:
    lossy = saved(rgb(), format="WEBP")[20:]
    lossless = saved(rgb(), format="WEBP", lossless=True)[20:]

    def extended(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return b"VP8X", bytes([flags, 0, 0, 0]) + sides

    yield HostileFile("webp-huge-canvas", riff(extended(1 << 24, 1 << 24), (b"VP8 ", lossy)), TOO_LARGE)
    yield HostileFile("webp-canvas-larger-than-lossy", riff(extended(7000, 7000), (b"VP8 ", lossy)), CORRUPT, 49_000_000)
    yield HostileFile("webp-canvas-larger-than-lossless", riff(extended(7000, 7000), (b"VP8L", lossless)), CORRUPT, 49_000_000)
    yield HostileFile("webp-canvas-smaller", riff(extended(8, 8), (b"VP8 ", lossy)), CORRUPT)
    for kind, data, place in ((b"VP8 ", lossy, 6), (b"VP8L", lossless, 1)):
        largest = kind, data[:place] + b"\xff\x3f\xff\x0f" + data[place + 4 :]
        name = kind.decode().strip().lower()
        yield HostileFile(f"webp-{name}-larger-than-the-canvas", riff(extended(96, 64), largest), CORRUPT)
        inside = bytes(16) + riff(largest)[12:]
        frames = riff(extended(96, 64, 2), (b"ANIM", bytes(6)), (b"ANMF", inside))
        yield HostileFile(f"webp-{name}-frame-larger-than-the-canvas", frames, CORRUPT)
    for kind, data, place in ((b"VP8 ", lossy, 6), (b"VP8L", lossless, 1)):
        lying = data[:place] + b"\xff\x0f\xff\x03" + data[place + 4 :]
        yield HostileFile(f"webp-lying-{kind.decode().strip().lower()}", riff((kind, lying)), CORRUPT, 17_000_000)
    yield HostileFile("webp-chunk-beyond-the-file", riff((b"VP8 ", lossy))[:60], CORRUPT)
    yield HostileFile("webp-no-picture", riff(extended(64, 64)), CORRUPT)
    frame = bytes(6) + (1 << 24).to_bytes(4, "little")[:3] * 2 + bytes(4) + b"VP8 " + struct.pack("<I", len(lossy)) + lossy
    animated = riff(extended(96, 64, 2), (b"ANIM", bytes(6)), (b"ANMF", frame))
    yield HostileFile("webp-frame-lies", animated, CORRUPT)
    small = Image.new("RGB", (32, 32))
    frames = {"save_all": True, "append_images": [Image.new("RGB", (32, 32), (i,) * 3) for i in range(1, 200)]}
    yield HostileFile("webp-many-frames", saved(small, format="WEBP", **frames), FINE)
