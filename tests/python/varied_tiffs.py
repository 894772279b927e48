"""TIFFs as scanners, microscopes and careless writers make them."""

from __future__ import annotations

import struct
from random import Random
from typing import Iterator

import numpy
from PIL import Image

from picture_files import PictureFile, pillow_pixels, read_by_pillow, rgb_of_floats, saved, tifffile_bytes, upper_bytes
from varied_pictures import varied, with_alpha

STRIP_OFFSETS, STRIP_LENGTHS, TILE_OFFSETS, TILE_LENGTHS = 273, 279, 324, 325
FILL_ORDER, T4_OPTIONS, PREDICTOR = 266, 292, 317
COMPRESSIONS = {"raw": None, "lzw": "tiff_lzw", "deflate": "tiff_adobe_deflate", "packbits": "packbits"}
ROWS_PER_STRIP = 278
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class TiffFile:
    """The directory of a little-endian TIFF, of which entries can be changed."""

    def __init__(self, content: bytes):
        assert content.startswith(b"II*\0")
        self.content = bytearray(content)
        self.start = struct.unpack_from("<I", content, 4)[0]
        count = struct.unpack_from("<H", content, self.start)[0]
        places = [self.start + 2 + 12 * index for index in range(count)]
        self.entries = {struct.unpack_from("<H", content, place)[0]: place for place in places}

    def values(self, tag: int) -> list[int]:
        value_type, count = struct.unpack_from("<HI", self.content, self.entries[tag] + 2)
        size = {3: 2, 4: 4}[value_type]
        place = self.entries[tag] + 8
        if size * count > 4:
            place = struct.unpack_from("<I", self.content, place)[0]
        return list(struct.unpack_from(f"<{count}{'H' if size == 2 else 'I'}", self.content, place))

    def put(self, tag: int, values: list[int]) -> None:
        """Replaces the values by as many LONGs, at the end of the file if they need the place."""
        place = self.entries[tag] + 8
        packed = struct.pack(f"<{len(values)}I", *values)
        struct.pack_into("<HI", self.content, place - 6, 4, len(values))
        if len(packed) > 4:
            struct.pack_into("<I", self.content, place, len(self.content))
            self.content += packed
        else:
            self.content[place : place + 4] = packed

    def rename(self, tag: int, other: int) -> None:
        """Gives the entry of `tag` the number of another, which nobody reads."""
        struct.pack_into("<H", self.content, self.entries[tag], other)

    def chunks(self) -> list[slice]:
        """Where the data of all strips or tiles are."""
        offsets, lengths = (
            (STRIP_OFFSETS, STRIP_LENGTHS) if STRIP_OFFSETS in self.entries else (TILE_OFFSETS, TILE_LENGTHS)
        )
        return [slice(start, start + length) for start, length in zip(self.values(offsets), self.values(lengths))]


def any_tiff(generator: Random, image: Image.Image) -> tuple[str, bytes]:
    """A TIFF with drawn colours and compression, in one strip, several strips or tiles."""
    mode = generator.choice(("RGB", "L", "P", "1", "RGBA", "CMYK"))
    picture = with_alpha(generator, image) if mode == "RGBA" else image.quantize(99) if mode == "P" else image.convert(mode)
    kinds = sorted(COMPRESSIONS) + ["group4"] * (mode == "1") + ["jpeg"] * (mode in ("L", "RGB"))
    kind, rows = generator.choice(kinds), generator.choice((image.height, 16, 8))
    if mode == "RGB" and kind in ("raw", "deflate") and generator.random() < 0.4:
        options = {"photometric": "rgb", "tile": (32, 16), "compression": {"raw": None, "deflate": "zlib"}[kind]}
        return f"tiles-{kind}", tifffile_bytes(numpy.asarray(image), **options)
    compression = COMPRESSIONS.get(kind, kind)
    return f"{mode}-{kind}-{rows}", saved(picture, format="TIFF", compression=compression, tiffinfo={ROWS_PER_STRIP: rows})


def without_lengths(generator: Random, content: bytes) -> tuple[str, bytes]:
    """The lengths of strips or tiles left out, 0, or too large."""
    file = TiffFile(content)
    tag = STRIP_LENGTHS if STRIP_LENGTHS in file.entries else TILE_LENGTHS
    lengths = file.values(tag)
    kind = generator.choice(("missing", "zero", "one-zero", "huge", "to-the-end", "twice"))
    if kind == "missing":
        # Left as the entry with the highest number.
        file.rename(tag, 65_000)
    elif kind == "one-zero":
        lengths[generator.randrange(len(lengths))] = 0
        file.put(tag, lengths)
    else:
        value = {"zero": lambda length: 0, "huge": lambda length: (1 << 32) - 1, "twice": lambda length: 2 * length}
        value["to-the-end"] = lambda length: len(content)
        file.put(tag, [value[kind](length) for length in lengths])
    return kind, bytes(file.content)


def tiffs_without_lengths() -> Iterator[PictureFile]:
    """The pixels are those of the file before its lengths were spoilt."""
    for generator, image in varied("lengths", 90):
        name, content = any_tiff(generator, image)
        spoilt, changed = without_lengths(generator, content)
        yield PictureFile(f"{name}-{spoilt}-{image.size}", changed, pillow_pixels(content), "jpeg" in name)


def associated_alpha() -> Iterator[PictureFile]:
    """Colours multiplied by alpha, of 8 and 16 bits, alone or with another extra sample."""
    for generator, image in varied("associated"):
        values = numpy.asarray(with_alpha(generator, image)).astype(numpy.uint32)
        # Not rounded, and some brighter than their alpha allows.
        values[..., :3] = values[..., :3] * values[..., 3:] // generator.choice((255, 200))
        values = values.clip(0, 255).astype(numpy.uint8)
        extra, order = ["assocalpha"], generator.choice("<>")
        is_deep = generator.random() < 0.3
        if is_deep:
            values = values.astype(numpy.uint16) * 257
        elif generator.random() < 0.3:
            values = numpy.concatenate([values, values[..., :1]], axis=2)
            extra.append("unspecified")
        kind = generator.choice((None, "zlib"))
        content = tifffile_bytes(values, photometric="rgb", extrasamples=extra, compression=kind, byteorder=order)
        yield read_by_pillow(f"{values.dtype}-{values.shape}-{kind}-{order}", content)


def numbers() -> Iterator[PictureFile]:
    """Grey of signed and 32-bit whole numbers and of floating-point numbers, as Pillow reads them."""
    for generator, image in varied("numbers", 60):
        grey = numpy.asarray(image.convert("L")).astype(numpy.float64)
        # Some below black and above white.
        grey = (grey - 40) * generator.choice((1, 1.5, 3))
        kind = generator.choice(("int16", "int32", "uint32", "float32"))
        compression = generator.choice((None, "zlib"))
        # Pillow refuses or mistakes the others.
        order = "<" if kind == "uint32" or compression else generator.choice("<>")
        if kind == "uint32":
            grey = grey.clip(0)
        options = {"compression": compression, "rowsperstrip": generator.choice((5, image.height))}
        content = tifffile_bytes(grey.astype(kind), photometric="minisblack", byteorder=order, **options)
        yield read_by_pillow(f"{kind}-{order}-{image.size}-{options}", content)


def numbers_of_other_ranges() -> Iterator[PictureFile]:
    """Where we differ from Pillow, as docs/pictures.md says: floats of 0 to 1, and 16 bits without sign."""
    for generator, image in varied("ranges"):
        pixels = numpy.asarray(image)
        kind = generator.choice(("float16", "float32", "float64", "uint16"))
        channels = generator.choice((1, 3))
        options = {"photometric": "rgb" if channels == 3 else "minisblack", "byteorder": generator.choice("<>")}
        if kind == "uint16":
            values = pixels[..., :channels].astype(numpy.uint16) * 255 + 99
            expected = upper_bytes(values)
        else:
            values = (pixels[..., :channels] / generator.choice((255, 300)) - 0.05).astype(kind)
            expected = rgb_of_floats(values.astype(numpy.float32))
        content = tifffile_bytes(values.squeeze(), **options)
        yield PictureFile(f"{kind}-{channels}-{options['byteorder']}-{image.size}", content, expected)


def faxes() -> Iterator[PictureFile]:
    """Group 3 in one and two dimensions, group 4 and plain run lengths, in strips, with black or white as 0."""
    for generator, image in varied("fax", 60):
        kind, options = generator.choice(
            (
                ("group3", {}),
                ("group3", {T4_OPTIONS: 1}),
                ("group3", {T4_OPTIONS: 4}),
                ("group3", {T4_OPTIONS: 5}),
                ("group4", {}),
                ("tiff_ccitt", {}),
            )
        )
        width = generator.choice((image.width, image.width - 3))
        picture = image.convert("1") if generator.random() < 0.7 else image.convert("L").point(lambda grey: 255 * (grey > 110), "1")
        picture = picture.crop((0, 0, width, image.height))
        options = options | {ROWS_PER_STRIP: generator.choice((image.height, 8)), 262: generator.choice((0, 1))}
        content = saved(picture, format="TIFF", compression=kind, tiffinfo=options)
        name = f"{kind}-{options}-{picture.size}"
        if generator.random() < 0.3:
            yield PictureFile(f"{name}-reversed", bits_reversed(content), pillow_pixels(content))
        else:
            yield read_by_pillow(name, content)


def predictors() -> Iterator[PictureFile]:
    """A predictor where the compression has none, which is ignored, and that of whole numbers for floats."""
    for generator, image in varied("predictors"):
        kind = generator.choice(("raw", "group4", "jpeg", "float32"))
        if kind == "float32":
            grey = numpy.asarray(image.convert("L")).astype(numpy.float32)
            bits = numpy.diff(grey.view(numpy.uint32), axis=1, prepend=numpy.uint32(0))
            content = tifffile_bytes(bits.view(numpy.float32), photometric="minisblack", compression="zlib")
        else:
            picture = image.convert("1") if kind == "group4" else image.convert(generator.choice(("L", "RGB")))
            compression = {"raw": None, "group4": "group4", "jpeg": "jpeg"}[kind]
            content = saved(picture, format="TIFF", compression=compression)
        yield read_by_pillow(f"{kind}-{image.size}", with_entry(TiffFile(content), PREDICTOR, 2), kind == "jpeg")


def bits_reversed(content: bytes) -> bytes:
    """The file with the bits of all strips the other way round, and its fill order 2, if it states one."""
    file = TiffFile(content)
    for chunk in file.chunks():
        file.content[chunk] = bytes(file.content[chunk]).translate(REVERSED)
    if FILL_ORDER in file.entries:
        file.put(FILL_ORDER, [2])
        return bytes(file.content)
    return with_entry(file, FILL_ORDER, 2)


def with_entry(file: TiffFile, tag: int, value: int) -> bytes:
    """The file with a further entry: its directory is written again at the end."""
    entries = [bytes(file.content[place : place + 12]) for place in file.entries.values()]
    entries.append(struct.pack("<HHII", tag, 3, 1, value))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    content = file.content + directory
    struct.pack_into("<I", content, 4, len(file.content))
    return bytes(content)


def fill_order_2() -> Iterator[PictureFile]:
    """The lowest bit first, raw and compressed, of every depth that Pillow reads so."""
    for generator, image in varied("fill-order"):
        mode, kind = generator.choice(("1", "L", "P", "RGB")), generator.choice(sorted(COMPRESSIONS))
        picture = image.quantize(77) if mode == "P" else image.convert(mode)
        rows = generator.choice((image.height, 8))
        content = saved(picture, format="TIFF", compression=COMPRESSIONS[kind], tiffinfo={ROWS_PER_STRIP: rows})
        yield read_by_pillow(f"{mode}-{kind}-{rows}-{image.size}", bits_reversed(content))
