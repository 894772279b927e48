"""JPEGs without what a JPEG ends with, half pictures, and JPEGs without Huffman tables."""

from __future__ import annotations

import io
from random import Random
from typing import Iterator

import numpy
import simplejpeg
from PIL import Image

from hostile_pictures import jpeg_segments
from picture_files import PictureFile, pillow_pixels, read_by_pillow, saved
from varied_pictures import varied

# What stands where the end marker should be.
TAILS = {
    "nothing": b"",
    "zeros": bytes(2),
    "many-zeros": bytes(5000),
    "line-end": b"\r\n",
    "text": b"\n-- uploaded with a form --\n",
    "stuffing": b"\xff\x00",
    "half-a-marker": b"\xff",
    "restart": b"\xff\xd3",
    "segment": b"\xff\xe1\x00\x06abcd",
}


def any_jpeg(generator: Random, image: Image.Image) -> tuple[str, bytes]:
    """A JPEG with drawn settings."""
    mode = generator.choice(("RGB", "RGB", "L", "CMYK"))
    quality = generator.choice((30, 75, 95))
    if mode == "RGB" and generator.random() < 0.2:
        sampling = generator.choice(("440", "411"))
        return f"{sampling}-{quality}", simplejpeg.encode_jpeg(numpy.asarray(image), quality, "RGB", sampling)
    options = {
        "quality": quality,
        "subsampling": generator.choice((0, 1, 2)),
        "progressive": generator.random() < 0.5,
        "optimize": generator.random() < 0.5,
        "restart_marker_blocks": generator.choice((0, 0, 1, 5)),
    }
    # What is never told from the pixels.
    name = "-".join(f"{value:d}" for value in options.values())
    return f"{mode}-{name}", saved(image.convert(mode), format="JPEG", **options)


def jpegs_without_end() -> Iterator[PictureFile]:
    """All data are there, and something else than the end marker behind them. The pixels are those of the whole file."""
    for generator, image in varied("no-end"):
        name, whole = any_jpeg(generator, image)
        assert whole.endswith(b"\xff\xd9")
        for tail in generator.sample(sorted(TAILS), 3):
            yield PictureFile(f"{name}-{image.size}-{tail}", whole[:-2] + TAILS[tail], pillow_pixels(whole), is_lossy=True)


def half_jpegs() -> Iterator[tuple[str, bytes]]:
    """Cut off in their data, at least a few bytes before the end, with and without a line's end behind."""
    for generator, image in varied("half"):
        name, whole = any_jpeg(generator, image)
        data = whole.index(b"\xff\xda") + 12
        cut = generator.randrange(data, len(whole) - 8)
        yield f"{name}-{image.size}-{cut}-of-{len(whole)}", whole[:cut] + generator.choice((b"", b"\r\n"))


def jpegs_without_tables() -> Iterator[PictureFile]:
    """Baseline, coded by the typical tables, which are left out: all of them, or some."""
    for generator, image in varied("no-tables"):
        mode = generator.choice(("RGB", "L", "CMYK"))
        options = {"quality": generator.choice((20, 60, 95)), "subsampling": generator.choice((0, 1, 2))}
        whole = saved(image.convert(mode), format="JPEG", restart_marker_blocks=generator.choice((0, 3)), **options)
        segments = jpeg_segments(whole)
        tables = [segment for segment in segments if segment[1] == 0xC4]
        left_out = tables if generator.random() < 0.7 else generator.sample(tables, 1)
        content = b"\xff\xd8" + b"".join(segment for segment in segments if segment not in left_out) + b"\xff\xd9"
        assert len(content) < len(whole)
        name = f"{mode}-{options['quality']}-{options['subsampling']}-{image.size}-without-{len(left_out)}"
        yield read_by_pillow(name, content, is_lossy=True)


def colour_codings() -> Iterator[PictureFile]:
    """With and without JFIF's marker, Adobe's with any transform before or behind it, and components of any name."""
    for generator, image in varied("colours", 90):
        mode = generator.choice(("RGB", "RGB", "CMYK"))
        whole = saved(image.convert(mode), format="JPEG", quality=92, progressive=generator.random() < 0.3)
        transform, has_jfif = generator.choice((None, 0, 1, 2, 3, 255)), generator.random() < 0.5
        names = generator.choice((None, b"RGB", b"\x01\x22\x11")) if mode == "RGB" else None
        segments = [renamed(it, names) for it in jpeg_segments(whole) if it[1] not in (0xE0, 0xEE)]
        markers = [b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"] if has_jfif else []
        if transform is not None:
            markers.append(b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform]))
            generator.shuffle(markers)
        content = b"\xff\xd8" + b"".join(markers + segments) + b"\xff\xd9"
        yield read_by_pillow(f"{mode}-{has_jfif}-{transform}-{names}-{image.size}", content, is_lossy=True)


def renamed(segment: bytes, names: bytes | None) -> bytes:
    """A frame or scan header with other names of its components, which were 1, 2 and 3."""
    place = {0xC0: 10, 0xC2: 10, 0xDA: 5}.get(segment[1])
    if names is None or place is None:
        return segment
    changed, step = bytearray(segment), 2 if segment[1] == 0xDA else 3
    for index in range(segment[place - 1]):
        changed[place + step * index] = names[segment[place + step * index] - 1]
    return bytes(changed)


def is_read_by_pillow(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except OSError:
        return False
    return True
