"""PNGs with damage that costs no pixel, GIFs on screens that are too small, animated WebPs, and BMPs with all headers."""

from __future__ import annotations

import struct
import zlib
from random import Random
from typing import Iterator

import numpy
from PIL import Image

from picture_files import PictureFile, bmp_palette, bmp_rows, pillow_pixels, png_chunk, pypng, read_by_pillow, saved
from varied_pictures import cut_into, varied, with_alpha

PNG_SIGNATURE = 8


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Kinds and values of the chunks of a PNG."""
    chunks, position = [], PNG_SIGNATURE
    while position < len(content):
        length = struct.unpack(">I", content[position : position + 4])[0]
        chunks.append((content[position + 4 : position + 8], content[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


def any_png(generator: Random, image: Image.Image) -> tuple[str, bytes]:
    """A PNG with drawn colours and interlacing."""
    name = generator.choice(("RGB", "L", "P", "RGBA", "LA", "1", "interlaced", "interlaced-palette"))
    if name == "interlaced":
        return name, pypng(numpy.asarray(image), greyscale=False, interlace=True)
    if name == "interlaced-palette":
        colors = image.quantize(4)
        palette = [tuple(entry) for entry in numpy.array(colors.getpalette(), numpy.uint8).reshape(-1, 3).tolist()][:4]
        return name, pypng(numpy.asarray(colors)[..., None], palette=palette, bitdepth=2, interlace=True)
    if name in ("RGBA", "LA"):
        return name, saved(with_alpha(generator, image).convert(name), format="PNG")
    return name, saved(image.quantize(50) if name == "P" else image.convert(name), format="PNG")


def damaged_png(generator: Random, content: bytes) -> tuple[str, bytes]:
    """The same pixels with wrong checksums, in other pieces, or with something wrong behind them."""
    chunks = png_chunks(content)
    pixels = b"".join(values for kind, values in chunks if kind == b"IDAT")
    before = content[:PNG_SIGNATURE] + b"".join(png_chunk(*chunk) for chunk in chunks[: [kind for kind, _ in chunks].index(b"IDAT")])
    pieces = cut_into(generator, pixels, generator.choice((1, 2, 5)))
    whole = [png_chunk(b"IDAT", piece) for piece in pieces]
    wrong = [chunk[:-4] + bytes(4) for chunk in whole]
    end = png_chunk(b"IEND", b"")
    return generator.choice(
        (
            ("wrong-checksums", before + b"".join(wrong) + end),
            ("one-wrong-checksum", before + b"".join(whole[:-1] + wrong[-1:]) + end),
            ("no-end", before + b"".join(whole)),
            ("no-last-checksum", before + b"".join(whole)[: -generator.randint(1, 4)]),
            # The checksum of the compressed data, 4 bytes, is in the last piece.
            ("no-checksum-of-data", before + b"".join(whole)[: -4 - generator.randint(1, 4)]),
            ("end-cut-off", before + b"".join(whole) + end[: generator.randint(1, 11)]),
            ("wrong-end", before + b"".join(whole) + b"\0\0\0\0IEND\1\2\3\4"),
            ("zeros-behind", before + b"".join(whole) + bytes(generator.randint(1, 200))),
            ("unknown-behind", before + b"".join(whole) + struct.pack(">I", 3) + b"abCd123" + bytes(4) + end),
        )
    )


def damaged_pngs() -> Iterator[PictureFile]:
    """Lossless: pixels are exactly those of the undamaged file."""
    for generator, image in varied("png", 60):
        name, content = any_png(generator, image)
        damage, damaged = damaged_png(generator, content)
        yield PictureFile(f"{name}-{damage}-{image.size}", damaged, pillow_pixels(content))


def half_pngs() -> Iterator[tuple[str, bytes]]:
    """Cut off in their pixels."""
    for generator, image in varied("half-png"):
        name, content = any_png(generator, image)
        chunks = png_chunks(content)
        pixels = sum(len(values) + 12 for kind, values in chunks if kind == b"IDAT")
        cut = generator.randrange(len(content) - 12 - pixels + 12, len(content) - 12 - 4 - 16)
        yield f"{name}-{image.size}-{cut}-of-{len(content)}", content[:cut]


def gifs_beyond_their_screen() -> Iterator[PictureFile]:
    """The screen is 0 x 0, too small in one direction or both, or the frame is moved."""
    for generator, image in varied("gif"):
        colors = generator.choice((2, 16, 256))
        options = {"interlace": generator.choice((0, 1))}
        if generator.random() < 0.5:
            options["transparency"] = generator.randrange(colors)
        if generator.random() < 0.3:
            options["comment"] = b"a comment, with a comma, and ! and ;" * 20
        palette = image.convert("L") if generator.random() < 0.2 else image.quantize(colors)
        content = bytearray(saved(palette, format="GIF", **options))
        screen = generator.choice(((0, 0), (1, 1), (image.width // 2, 200), (200, 7), image.size))
        left, top = generator.choice(((0, 0), (32, 0), (0, 64), (32, 32)))
        content[6:10] = struct.pack("<HH", *screen)
        frame = content.rindex(b",\0\0\0\0" + struct.pack("<HH", *image.size))
        content[frame + 1 : frame + 5] = struct.pack("<HH", left, top)
        # The server leaves multiples of 32 as they are.
        canvas = (max(screen[0], left + image.width), max(screen[1], top + image.height))
        content[6:10] = struct.pack("<HH", *(side if side < 100 else -(-side // 32) * 32 for side in screen))
        yield read_by_pillow(f"{colors}-{screen}-{(left, top)}-{image.size}-{canvas}", bytes(content))


def animated_webps() -> Iterator[PictureFile]:
    """The first frame as it is, with alpha and without, lossless and lossy, alone on its canvas or smaller than it."""
    for generator, image in varied("webp", 2 * 30):
        is_lossy, has_alpha = generator.random() < 0.5, generator.random() < 0.7
        first = with_alpha(generator, image) if has_alpha else image
        others = [Image.new(first.mode, image.size, generator.choice(("red", "white"))), first.transpose(Image.Transpose.ROTATE_180)]
        options = {"lossless": not is_lossy, "quality": generator.choice((10, 80, 100)), "exact": generator.random() < 0.5}
        options |= {"background": (1, 2, 3, 255), "allow_mixed": generator.random() < 0.3}
        content = saved(first, format="WEBP", save_all=True, append_images=others, **options)
        if generator.random() < 0.5:
            content = on_a_larger_canvas(content, (2 * generator.randrange(16), 2 * generator.randrange(16)), 128)
        yield read_by_pillow(f"{'lossy' * is_lossy}-{first.mode}-{image.size}-{len(content)}", content)


def on_a_larger_canvas(content: bytes, place: tuple[int, int], side: int) -> bytes:
    """An animated WebP of `side` pixels, with its first frame at `place`."""
    changed = bytearray(content)
    extended = content.index(b"VP8X") + 8
    changed[extended + 4 : extended + 10] = (side - 1).to_bytes(3, "little") * 2
    frame = content.index(b"ANMF") + 8
    changed[frame : frame + 6] = b"".join((length // 2).to_bytes(3, "little") for length in place)
    return bytes(changed)


def bmp_header(generator: Random, length: int, size: tuple[int, int], bits: int, colors: int, masks: tuple[int, ...]) -> bytes:
    """The picture's header of one of seven lengths; with `masks` for the colours, unless they have to follow it."""
    width, height = size
    planes = generator.choice((0, 1, 1, 3, 65_535))
    if length == 12:
        return struct.pack("<IHHHH", length, width, height, planes, bits)
    compression = 3 if masks else 0
    resolution = generator.choice((0, 2835))
    header = struct.pack("<IiiHHIIiiII", length, width, height, planes, bits, compression, 0, resolution, resolution, colors, 0)
    header += struct.pack("<III", *masks) if masks and length > 40 else b""
    return header.ljust(length, b"\0")


def bmps_with_all_headers() -> Iterator[PictureFile]:
    """Every length of header that Pillow knows, with other planes than 1, palettes of all sizes, and careless offsets."""
    lengths = (12, 40, 52, 56, 64, 108, 124)
    for index, (generator, image) in enumerate(varied("bmp", 10 * len(lengths))):
        length = lengths[index % len(lengths)]
        bits = generator.choice((1, 4, 8, 24) if length == 12 else (1, 4, 8, 24, 32))
        is_from_top = length != 12 and generator.random() < 0.3
        pixels = numpy.asarray(image)
        masks, colors, palette = (), 0, b""
        if bits <= 8:
            quantized = image.quantize(generator.choice((2, 1 << bits)))
            palette = bmp_palette(quantized)
            colors = generator.choice((len(palette) // 4, 0 if len(palette) // 4 == 1 << bits else len(palette) // 4))
            if length == 12:
                entries = numpy.frombuffer(palette.ljust(4 << bits, b"\0"), numpy.uint8).reshape(-1, 4)
                palette = entries[:, :3].tobytes()
            data = bmp_rows(numpy.asarray(quantized), bits)
        elif bits == 24:
            data = numpy.ascontiguousarray(pixels[::-1, :, ::-1]).tobytes()
        else:
            masks = generator.choice(((), (0xFF0000, 0xFF00, 0xFF), (0xFF000000, 0xFF0000, 0xFF00)) if length != 64 else ((),))
            bgrx = numpy.pad(pixels[::-1, :, ::-1], ((0, 0), (0, 0), (0, 1)), constant_values=7)
            data = (numpy.roll(bgrx, 1, axis=2) if masks and masks[2] == 0xFF00 else bgrx).tobytes()
        if is_from_top:
            stride = len(data) // image.height
            data = b"".join(data[start : start + stride] for start in range(len(data) - stride, -1, -stride))
        size = image.width, -image.height if is_from_top else image.height
        header = bmp_header(generator, length, size, bits, colors, masks) + (struct.pack("<III", *masks) if masks and length == 40 else b"")
        # Some writers leave the place of the pixels out.
        offset = generator.choice((14 + len(header) + len(palette), 0))
        content = struct.pack("<2sIHHI", b"BM", 0, 0, 0, offset) + header + palette + data
        yield read_by_pillow(f"{length}-{bits}-{colors}-{'top' * is_from_top}-{len(masks)}-{offset}-{image.size}", content)


def bmps_of_run_lengths() -> Iterator[PictureFile]:
    """Runs, literals, jumps and early ends of rows: what is left out has the first colour."""
    for generator, image in varied("rle"):
        bits = generator.choice((4, 8))
        quantized = image.quantize(1 << bits)
        rows = []
        for row in numpy.asarray(quantized)[::-1].tolist():
            data, x = b"", 0
            end = generator.choice((len(row), len(row), generator.randrange(2, len(row), 2)))
            while x < end:
                run = min(generator.randint(1, 12), end - x)
                kind = generator.random()
                if kind < 0.4 or run < 3:
                    data += bytes([run, row[x] if bits == 8 else row[x] * 17])
                elif kind < 0.8:
                    literal = bytes(row[x : x + run])
                    if bits == 4:
                        literal = bytes(a << 4 | b for a, b in zip(literal[::2], literal[1::2] + b"\0"))
                    data += bytes([0, run]) + literal + b"\0" * (len(literal) % 2)
                else:
                    data += bytes([0, 2, run, 0])
                x += run
            rows.append(data + b"\0\0")
        data = b"".join(rows) + b"\0\1"
        header = struct.pack("<IiiHHIIiiII", 40, *image.size, 1, bits, {8: 1, 4: 2}[bits], len(data), 0, 0, 1 << bits, 0)
        palette = bmp_palette(quantized).ljust(4 << bits, b"\0")
        content = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + 40 + len(palette)) + header + palette + data
        yield read_by_pillow(f"{bits}-{image.size}-{zlib.crc32(content)}", content)
