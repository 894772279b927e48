"""Orientations wherever Pillow looks for them: EXIF data with numbers of every type, and XMP, in every carrier."""

from __future__ import annotations

import itertools
import struct
import zlib
from random import Random
from typing import Callable, Iterator

from PIL import Image, PngImagePlugin

from picture_files import PictureFile, png_chunk, png_with_chunk_before_end, read_by_pillow, saved
from varied_pictures import varied

ORIENTATION = 274
XMP_TAG = 700
# Types of values that are numbers, with their packed form.
NUMBERS: dict[str, tuple[int, Callable[[str, int], bytes]]] = {
    "short": (3, lambda order, value: struct.pack(order + "H", value)),
    "long": (4, lambda order, value: struct.pack(order + "I", value)),
    "rational": (5, lambda order, value: struct.pack(order + "II", value * 3, 3)),
    "signed-byte": (6, lambda order, value: struct.pack(order + "b", value)),
    "signed-short": (8, lambda order, value: struct.pack(order + "h", value)),
    "signed-long": (9, lambda order, value: struct.pack(order + "i", value)),
    "signed-rational": (10, lambda order, value: struct.pack(order + "ii", -value, -1)),
    "float": (11, lambda order, value: struct.pack(order + "f", value)),
    "double": (12, lambda order, value: struct.pack(order + "d", value)),
    "ifd": (13, lambda order, value: struct.pack(order + "I", value)),
    "long8": (16, lambda order, value: struct.pack(order + "Q", value)),
}
# Not taken for numbers.
OTHERS: dict[str, tuple[int, Callable[[str, int], bytes]]] = {
    "byte": (1, lambda order, value: bytes([value])),
    "text": (2, lambda order, value: b"%d\0" % value),
    "undefined": (7, lambda order, value: bytes([value])),
    "unknown": (99, lambda order, value: bytes([value])),
}


def exif(order: str, value_type: int, values: bytes, count: int) -> bytes:
    """EXIF data with an entry before the orientation and one behind it."""
    text = b"DenseCL test\0"
    start = 8 + 2 + 3 * 12 + 4
    place = values.ljust(4, b"\0") if len(values) <= 4 else struct.pack(order + "I", start + len(text))
    entries = struct.pack(order + "HHII", 271, 2, len(text), start)
    entries += struct.pack(order + "HHI", ORIENTATION, value_type, count) + place
    entries += struct.pack(order + "HHII", 296, 4, 1, 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 3)
    return head + entries + bytes(4) + text + values


def any_exif(generator: Random, orientation: int, types: dict) -> tuple[str, bytes]:
    """EXIF data that have the orientation as a number of some type, once or several times."""
    name, (value_type, packed) = generator.choice(sorted(types.items()))
    order, count = generator.choice("<>"), generator.choice((1, 1, 2, 3))
    values = packed(order, orientation) + b"".join(packed(order, 3) for _ in range(count - 1))
    return f"{name}-{count}{order}", exif(order, value_type, values, len(values) if value_type in (1, 2, 7, 99) else count)


def jpeg_segment(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", 2 + len(payload)) + payload


def profile_text(data: bytes) -> bytes:
    """EXIF data as ImageMagick writes them into a PNG."""
    digits = data.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return f"\nexif\n{len(data):8}\n{lines}\n".encode()


def text_chunk(kind: str, keyword: bytes, text: bytes) -> tuple[bytes, bytes]:
    """A text of a PNG; `iTXt-compressed` is the only kind with two forms."""
    return {
        "tEXt": (b"tEXt", keyword + b"\0" + text),
        "zTXt": (b"zTXt", keyword + b"\0\0" + zlib.compress(text)),
        "iTXt": (b"iTXt", keyword + b"\0\0\0en\0\0" + text),
        "iTXt-compressed": (b"iTXt", keyword + b"\0\1\0\0" + keyword + b"\0" + zlib.compress(text)),
    }[kind]


TEXTS = ("tEXt", "zTXt", "iTXt", "iTXt-compressed")


def with_chunk(generator: Random, content: bytes, chunk: tuple[bytes, bytes]) -> bytes:
    """The PNG with a chunk before its pixels or behind them."""
    if generator.random() < 0.5:
        return png_with_chunk_before_end(content, *chunk)
    # Behind the signature and the header.
    return content[:33] + png_chunk(*chunk) + content[33:]


def with_webp_chunk(image: Image.Image, kind: bytes, data: bytes, flag: int) -> bytes:
    """A lossless WebP with a chunk of metadata behind its pixels."""
    pixels = saved(image, format="WEBP", lossless=True)[12:]
    sides = (image.width - 1).to_bytes(3, "little") + (image.height - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<IB3x", 10, flag) + sides
    body = b"WEBP" + extended + pixels + kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_tiff_entry(image: Image.Image, entries: list[tuple[int, int, bytes, int]]) -> bytes:
    """A raw little-endian TIFF with further entries: tag, type, values, count."""
    pixels = image.tobytes()
    sides = [(256, 4, struct.pack("<I", image.width), 1), (257, 4, struct.pack("<I", image.height), 1)]
    layout = [(258, 3, struct.pack("<HHH", 8, 8, 8), 3), (262, 3, b"\2\0", 1), (273, 4, struct.pack("<I", 8), 1)]
    layout += [(277, 3, b"\3\0", 1), (279, 4, struct.pack("<I", len(pixels)), 1)]
    everything = sorted(sides + layout + entries)
    body, table = pixels, b""
    for tag, value_type, values, count in everything:
        place = values.ljust(4, b"\0")
        if len(values) > 4:
            place, body = struct.pack("<I", 8 + len(body)), body + values
        table += struct.pack("<HHI", tag, value_type, count) + place
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(everything)) + table + bytes(4)


def in_every_carrier(generator: Random, image: Image.Image, data: bytes) -> Iterator[tuple[str, bytes]]:
    """EXIF data in each format, and in each place that a PNG has for them."""
    prefix = generator.choice((b"", b"Exif\0\0"))
    jpeg = saved(image, format="JPEG", quality=90)
    png = saved(image, format="PNG")
    yield "jpeg", jpeg[:2] + jpeg_segment(b"Exif\0\0" + data) + jpeg[2:]
    yield "png-exif", with_chunk(generator, png, (b"eXIf", prefix + data))
    kind = generator.choice(TEXTS)
    yield f"png-{kind}", with_chunk(generator, png, text_chunk(kind, b"Raw profile type exif", profile_text(prefix + data)))
    yield "webp", with_webp_chunk(image, b"EXIF", prefix + data, 8)


def exif_of_every_type() -> Iterator[PictureFile]:
    """Numbers of every type and count; what is no number leaves the picture as it is."""
    for (generator, image), types in zip(varied("exif"), itertools.cycle((NUMBERS, NUMBERS, OTHERS))):
        orientation = generator.randint(1, 8)
        name, data = any_exif(generator, orientation, types)
        for carrier, content in in_every_carrier(generator, image, data):
            yield read_by_pillow(f"{carrier}-{name}-{orientation}-{image.size}", content, carrier == "jpeg")


def orientations_of_tiffs() -> Iterator[PictureFile]:
    """The same in a TIFF's own directory."""
    types = sorted((NUMBERS | OTHERS).items())
    for (generator, image), (name, (value_type, packed)) in zip(varied("tiff"), itertools.cycle(types)):
        orientation, count = generator.randint(1, 8), generator.choice((1, 2))
        values = packed("<", orientation) * count
        entry = (ORIENTATION, value_type, values, len(values) if value_type in (1, 2, 7, 99) else count)
        yield read_by_pillow(f"{name}-{count}-{orientation}-{image.size}", with_tiff_entry(image, [entry]))


def xmp_packet(generator: Random, orientation: int) -> bytes:
    """An XMP packet that has the orientation as attribute or element, among others."""
    names = b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    attribute, element = b"", b"<tiff:Make>DenseCL</tiff:Make>"
    if generator.random() < 0.5:
        attribute = b' tiff:Orientation="%d"' % orientation
    else:
        element += b"<tiff:Orientation>%d</tiff:Orientation>" % orientation
    body = b"<rdf:RDF " + names + b'><rdf:Description rdf:about=""' + attribute + b">" + element + b"</rdf:Description></rdf:RDF>"
    padding = b" " * generator.choice((0, 100, 20_000))
    return b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">' + padding + body + b"</x:xmpmeta>"


def xmp_orientations() -> Iterator[PictureFile]:
    """XMP where there are no EXIF data, or none with the tag; and where EXIF data have it, which then decide."""
    for generator, image in varied("xmp"):
        orientation = generator.randint(2, 8)
        packet = xmp_packet(generator, orientation)
        jpeg, png = saved(image, format="JPEG", quality=90), saved(image, format="PNG")
        segments = jpeg_segment(b"http://ns.adobe.com/xap/1.0/\0" + packet)
        with_exif = generator.choice(("", "-and-exif", "-and-exif-without"))
        if with_exif == "-and-exif":
            segments = jpeg_segment(b"Exif\0\0" + any_exif(generator, 3, NUMBERS)[1]) + segments
        elif with_exif:
            segments += jpeg_segment(b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")
        kind = generator.choice(TEXTS)
        for name, content in (
            (f"jpeg{with_exif}", jpeg[:2] + segments + jpeg[2:]),
            (f"png-{kind}", with_chunk(generator, png, text_chunk(kind, b"XML:com.adobe.xmp", packet))),
            ("webp", with_webp_chunk(image, b"XMP ", packet, generator.choice((4, 4, 0)))),
            ("tiff", with_tiff_entry(image, [(XMP_TAG, generator.choice((1, 7)), packet, len(packet))])),
        ):
            yield read_by_pillow(f"{name}-{orientation}-{image.size}-{len(packet)}", content, name.startswith("jpeg"))


def xmp_as_pillow_writes_it() -> Iterator[PictureFile]:
    """Files whose metadata Pillow itself has written."""
    for generator, image in varied("xmp-pillow"):
        packet = xmp_packet(generator, generator.randint(2, 8))
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", packet, zip=generator.random() < 0.5)
        kind, options = generator.choice(
            (
                ("PNG", {"pnginfo": text}),
                ("WEBP", {"lossless": True, "xmp": packet}),
                ("JPEG", {"quality": 90, "xmp": packet}),
                ("TIFF", {"tiffinfo": {XMP_TAG: packet}, "compression": "tiff_lzw"}),
            )
        )
        yield read_by_pillow(f"{kind}-{image.size}-{len(packet)}", saved(image, format=kind, **options), kind == "JPEG")
