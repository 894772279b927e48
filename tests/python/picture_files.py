"""Picture files of every kind that the server reads, made at test time, each with the pixels that it stands for.

The writers are Pillow, pypng (depths and interlacing that Pillow does not write), tifffile (tiles, planes, byte orders)
and simplejpeg (chroma at a quarter of the width). What none of them writes is made by hand from the format's
description, or by changing a byte of what they wrote. The pixels are Pillow's, read back from the file; where Pillow
has no sane RGB for a file (grey of 16 bits, floats), they are computed from what was written.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Iterator

import numpy
import png
import simplejpeg
import tifffile
from PIL import Image, ImageOps

from photographs import photograph, window

WIDTH, HEIGHT = 96, 64
ORIENTATION_TAG = 274
# Written wherever a decoder must not look: alpha that hides everything, or a second page.
DECOY = 7


@dataclass(frozen=True)
class PictureFile:
    """A file, and the RGB pixels `[H, W, 3]` that it stands for."""

    name: str
    content: bytes
    pixels: numpy.ndarray
    is_lossy: bool = False


def pillow_pixels(content: bytes) -> numpy.ndarray:
    """What Pillow makes of a file: its first frame, upright, as RGB."""
    with Image.open(io.BytesIO(content)) as image:
        return numpy.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def read_by_pillow(name: str, content: bytes, is_lossy: bool = False) -> PictureFile:
    return PictureFile(name, content, pillow_pixels(content), is_lossy)


def saved(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def rgb() -> Image.Image:
    """Fur, an eye and whiskers: fine detail in colour, without the photograph's profile."""
    return Image.fromarray(numpy.asarray(window(photograph("chelsea.png"), 120, 60, WIDTH, HEIGHT)))


def alpha() -> Image.Image:
    """From clear to opaque."""
    return Image.fromarray(numpy.linspace(0, 255, WIDTH * HEIGHT).astype(numpy.uint8).reshape(HEIGHT, WIDTH))


def rgba() -> Image.Image:
    image = rgb()
    image.putalpha(alpha())
    return image


def grey_alpha() -> Image.Image:
    image = rgb().convert("L")
    image.putalpha(alpha())
    return image


def palette(colors: int) -> Image.Image:
    return rgb().quantize(colors)


def deep(channels: int) -> numpy.ndarray:
    """`[H, W, channels]` of 16 bits, whose lower bytes are not zero."""
    values = numpy.random.default_rng(0).integers(0, 1 << 16, (HEIGHT, WIDTH, channels), dtype=numpy.uint16)
    values[..., :3] //= 2
    values[..., :3] += numpy.asarray(rgb(), dtype=numpy.uint16)[..., : min(channels, 3)] * 128
    return values


def upper_bytes(values: numpy.ndarray) -> numpy.ndarray:
    """RGB `[H, W, 3]` of 16-bit values `[H, W, 1 to 4]`, alpha dropped, grey repeated."""
    values = (values >> 8).astype(numpy.uint8)
    return numpy.repeat(values[..., :1], 3, axis=2) if values.shape[2] < 3 else values[..., :3]


def every_file() -> list[PictureFile]:
    """All of them, names unique."""
    makers = (jpegs, orientations, pngs, gifs, webps, bmps, tiffs)
    return [file for maker in makers for file in maker()]


def jpegs() -> Iterator[PictureFile]:
    image = rgb()
    for mode in ("RGB", "L"):
        for quality in (50, 90, 100):
            for subsampling in (0, 1, 2):
                for progressive in (False, True):
                    name = f"jpeg-{mode}-{quality}-{('444', '422', '420')[subsampling]}" + "-progressive" * progressive
                    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
                    yield read_by_pillow(name, saved(image.convert(mode), format="JPEG", **options), is_lossy=True)
    # Sizes that are no multiples of a block, where upsampling meets the edges.
    for width, height in ((1, 1), (2, 2), (3, 5), (7, 8), (9, 7), (15, 16), (17, 17), (33, 31), (95, 63)):
        for progressive in (False, True):
            name = f"jpeg-{width}x{height}" + "-progressive" * progressive
            small = image.resize((width, height))
            yield read_by_pillow(name, saved(small, format="JPEG", progressive=progressive), is_lossy=True)
    for subsampling in ("440", "411"):
        content = simplejpeg.encode_jpeg(numpy.asarray(image), 90, "RGB", subsampling)
        yield read_by_pillow(f"jpeg-{subsampling}", content, is_lossy=True)
    yield read_by_pillow("jpeg-restarts", saved(image, format="JPEG", restart_marker_blocks=3), is_lossy=True)
    yield read_by_pillow("jpeg-optimized", saved(image, format="JPEG", optimize=True), is_lossy=True)
    yield read_by_pillow("jpeg-rgb", saved(image, format="JPEG", keep_rgb=True, quality=90), is_lossy=True)
    for progressive in (False, True):
        cmyk = saved(image.convert("CMYK"), format="JPEG", quality=90, progressive=progressive)
        suffix = "-progressive" * progressive
        yield read_by_pillow("jpeg-cmyk-adobe" + suffix, cmyk, is_lossy=True)
        yield read_by_pillow("jpeg-cmyk-plain" + suffix, without_adobe_segment(cmyk), is_lossy=True)
        yield read_by_pillow("jpeg-ycck" + suffix, with_adobe_transform(cmyk, 2), is_lossy=True)
    yield read_by_pillow("jpeg-then-rubbish", saved(image, format="JPEG") + b"\xff\xd8\xff rubbish", is_lossy=True)
    profile = b"\xff\xd9 not the end \xff\xda"
    yield read_by_pillow("jpeg-profile", saved(image, format="JPEG", icc_profile=profile * 9000), is_lossy=True)


def adobe_segment(jpeg: bytes) -> int:
    """Where the Adobe segment of a JPEG begins."""
    return jpeg.index(b"\xff\xee\x00\x0eAdobe")


def without_adobe_segment(jpeg: bytes) -> bytes:
    start = adobe_segment(jpeg)
    return jpeg[:start] + jpeg[start + 16 :]


def with_adobe_transform(jpeg: bytes, transform: int) -> bytes:
    """The same coefficients, said to be of another colour space: 2 is YCCK."""
    place = adobe_segment(jpeg) + 15
    return jpeg[:place] + bytes([transform]) + jpeg[place + 1 :]


def orientations() -> Iterator[PictureFile]:
    """All eight in each format that has them, and data that say none."""
    image = rgb()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        yield read_by_pillow(f"jpeg-orientation-{orientation}", saved(image, format="JPEG", exif=exif), is_lossy=True)
        yield read_by_pillow(f"png-orientation-{orientation}", saved(image, format="PNG", exif=exif))
        yield read_by_pillow(f"webp-orientation-{orientation}", saved(image, format="WEBP", lossless=True, exif=exif))
        tiff = saved(image, format="TIFF", tiffinfo={ORIENTATION_TAG: orientation})
        yield read_by_pillow(f"tiff-orientation-{orientation}", tiff)
    behind_the_pixels = png_with_chunk_before_end(
        saved(image, format="PNG"), b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    yield read_by_pillow("png-orientation-behind-the-pixels", behind_the_pixels)
    for name, exif in (("none", b"Exif\0\0"), ("rubbish", b"Exif\0\0MM\0*\xff\xff\xff\xff"), ("nine", nine())):
        yield read_by_pillow(f"jpeg-orientation-{name}", saved(image, format="JPEG", exif=exif), is_lossy=True)


def nine() -> bytes:
    """EXIF data with an orientation that there is not."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 9
    return exif.tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = png.zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png_with_chunk_before_end(content: bytes, kind: bytes, data: bytes) -> bytes:
    end = content.rindex(b"IEND") - 4
    return content[:end] + png_chunk(kind, data) + content[end:]


def pypng(rows: numpy.ndarray, **options) -> bytes:
    """`rows` `[H, W, C]` as pypng writes them."""
    buffer = io.BytesIO()
    height, width = rows.shape[:2]
    png.Writer(width, height, **options).write(buffer, rows.reshape(height, -1).tolist())
    return buffer.getvalue()


def pngs() -> Iterator[PictureFile]:
    images = {"rgb": rgb(), "rgba": rgba(), "grey": rgb().convert("L"), "grey-alpha": grey_alpha(), "1": rgb().convert("1")}
    for name, image in images.items():
        yield read_by_pillow(f"png-{name}", saved(image, format="PNG"))
    yield read_by_pillow("png-color-key", saved(rgb(), format="PNG", transparency=rgb().getpixel((5, 5))))
    yield read_by_pillow("png-grey-key", saved(rgb().convert("L"), format="PNG", transparency=99))
    for interlace in (False, True):
        suffix = "-interlaced" * interlace
        for depth in (1, 2, 4, 8):
            colors = palette(1 << depth)
            indices = numpy.asarray(colors)[..., None]
            entries = [tuple(entry) for entry in numpy.array(colors.getpalette(), numpy.uint8).reshape(-1, 3).tolist()]
            entries = entries[: 1 << depth]
            options = {"palette": entries, "bitdepth": depth, "interlace": interlace}
            yield read_by_pillow(f"png-palette-{depth}{suffix}", pypng(indices, **options))
            options["palette"] = [(*entry, DECOY) for entry in entries]
            yield read_by_pillow(f"png-palette-{depth}-clear{suffix}", pypng(indices, **options))
            grey = numpy.asarray(rgb().convert("L"))[..., None] >> (8 - depth)
            yield read_by_pillow(f"png-grey-{depth}{suffix}", pypng(grey, greyscale=True, bitdepth=depth, interlace=interlace))
        for channels, options in (
            (1, {"greyscale": True}),
            (2, {"greyscale": True, "alpha": True}),
            (3, {"greyscale": False}),
            (4, {"greyscale": False, "alpha": True}),
        ):
            values = deep(channels)
            content = pypng(values, bitdepth=16, interlace=interlace, **options)
            yield PictureFile(f"png-16-{channels}{suffix}", content, upper_bytes(values))
        for width, height in ((1, 1), (1, 9), (9, 1), (5, 3)):
            small = numpy.asarray(rgb().resize((width, height)))
            yield read_by_pillow(f"png-{width}x{height}{suffix}", pypng(small, greyscale=False, interlace=interlace))
    other = Image.new("RGB", (WIDTH, HEIGHT), (DECOY,) * 3)
    yield read_by_pillow("png-animated", saved(rgb(), format="PNG", save_all=True, append_images=[other]))
    yield read_by_pillow(
        "png-animated-default", saved(rgb(), format="PNG", save_all=True, append_images=[other], default_image=True)
    )


def gifs() -> Iterator[PictureFile]:
    other = Image.new("P", (WIDTH, HEIGHT), DECOY)
    for colors in (2, 4, 16, 256):
        for interlace in (0, 1):
            suffix = "-interlaced" * interlace
            yield read_by_pillow(f"gif-{colors}{suffix}", saved(palette(colors), format="GIF", interlace=interlace))
    yield read_by_pillow("gif-grey", saved(rgb().convert("L"), format="GIF"))
    yield read_by_pillow("gif-clear", saved(palette(32), format="GIF", transparency=3))
    animated = saved(palette(32), format="GIF", save_all=True, append_images=[other, palette(16)], loop=0)
    yield read_by_pillow("gif-animated", animated)
    for name, transparency in (("", {}), ("-clear", {"transparency": 3})):
        content = bytearray(saved(palette(32), format="GIF", **transparency))
        content[6:10] = struct.pack("<HH", WIDTH + 32, HEIGHT + 64)
        yield read_by_pillow(f"gif-on-a-larger-canvas{name}", bytes(content))
        frame = content.index(b",\0\0\0\0" + struct.pack("<HH", WIDTH, HEIGHT))
        content[frame + 1 : frame + 5] = struct.pack("<HH", 20, 40)
        yield read_by_pillow(f"gif-inside-a-larger-canvas{name}", bytes(content))


def webps() -> Iterator[PictureFile]:
    image = rgb()
    for quality in (20, 80, 100):
        yield read_by_pillow(f"webp-{quality}", saved(image, format="WEBP", quality=quality))
        yield read_by_pillow(f"webp-{quality}-alpha", saved(rgba(), format="WEBP", quality=quality))
    for width, height in ((1, 1), (3, 5), (17, 31)):
        small = image.resize((width, height))
        yield read_by_pillow(f"webp-{width}x{height}", saved(small, format="WEBP"))
        yield read_by_pillow(f"webp-lossless-{width}x{height}", saved(small, format="WEBP", lossless=True))
    for method in (0, 6):
        yield read_by_pillow(f"webp-lossless-{method}", saved(image, format="WEBP", lossless=True, method=method))
    yield read_by_pillow("webp-lossless-alpha", saved(rgba(), format="WEBP", lossless=True, exact=True))
    yield read_by_pillow("webp-lossless-palette", saved(palette(5).convert("RGB"), format="WEBP", lossless=True))
    other = Image.new("RGB", (WIDTH, HEIGHT), (DECOY,) * 3)
    for lossless in (False, True):
        frames = {"save_all": True, "append_images": [other, image], "lossless": lossless}
        name = "webp-animated" + "-lossless" * lossless
        yield read_by_pillow(name, saved(image, format="WEBP", **frames))


def bmp(width: int, height: int, bits: int, data: bytes, *, colors: bytes = b"", compression: int = 0) -> bytes:
    """A BMP file with the usual header; a negative height means rows from the top."""
    offset = 14 + 40 + len(colors)
    entries = len(colors) // 4 if bits <= 8 else 0
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 2835, 2835, entries, 0)
    return struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + info + colors + data


def bmp_rows(indices: numpy.ndarray, bits: int) -> bytes:
    """Rows of `indices` `[H, W]` from bottom to top, packed, each padded to four bytes."""
    planes = numpy.unpackbits(indices[::-1, :, None].astype(numpy.uint8), axis=2)[..., 8 - bits :]
    packed = numpy.packbits(planes.reshape(len(indices), -1), axis=1)
    return numpy.pad(packed, ((0, 0), (0, -packed.shape[1] % 4))).tobytes()


def bmp_palette(image: Image.Image) -> bytes:
    entries = numpy.array(image.getpalette(), numpy.uint8).reshape(-1, 3)
    return numpy.pad(entries[:, ::-1], ((0, 0), (0, 1))).tobytes()


def run_lengths(indices: numpy.ndarray, bits: int) -> bytes:
    """`indices` `[H, W]` as BMP's run lengths: a run where a value repeats, literals where none does."""
    data = b""
    for row in indices[::-1].tolist():
        x = 0
        while x < len(row):
            run = next((n for n in range(1, min(255, len(row) - x)) if row[x + n] != row[x]), min(255, len(row) - x))
            if run == 1 and len(row) - x >= 3:
                literal = bytes(row[x : x + 3]) if bits == 8 else bytes([row[x] << 4 | row[x + 1], row[x + 2] << 4])
                data += bytes([0, 3]) + literal + b"\0" * (len(literal) % 2)
                x += 3
                continue
            data += bytes([run, row[x] if bits == 8 else row[x] * 17])
            x += run
        data += b"\0\0"
    return data + b"\0\1"


def bmps() -> Iterator[PictureFile]:
    images = {"rgb": rgb(), "rgba": rgba(), "grey": rgb().convert("L"), "palette": palette(200), "1": rgb().convert("1")}
    for name, image in images.items():
        yield read_by_pillow(f"bmp-{name}", saved(image, format="BMP"))
    for bits in (1, 4, 8):
        image = palette(1 << bits)
        for width in (WIDTH, WIDTH - 1, WIDTH - 5):
            indices = numpy.asarray(image)[:, :width]
            content = bmp(width, HEIGHT, bits, bmp_rows(indices, bits), colors=bmp_palette(image))
            yield read_by_pillow(f"bmp-{bits}-{width}", content)
    for bits, compression in ((8, 1), (4, 2)):
        image = palette(1 << bits)
        # Flat parts, so that there are runs.
        indices = numpy.asarray(image) // 4 * 4
        data = run_lengths(indices, bits)
        content = bmp(WIDTH, HEIGHT, bits, data, colors=bmp_palette(image), compression=compression)
        yield read_by_pillow(f"bmp-{bits}-run-lengths", content)
    pixels = numpy.asarray(rgb())
    top_down = numpy.ascontiguousarray(pixels[..., ::-1]).tobytes()
    yield read_by_pillow("bmp-top-down", bmp(WIDTH, -HEIGHT, 24, top_down))
    fives, sixes = pixels.astype(numpy.uint16) >> 3, pixels.astype(numpy.uint16) >> 2
    # Pillow cuts off the fraction of value * 255 / 31, the server rounds it.
    rounded = (fives * (255 / 31) + 0.5).astype(numpy.uint8)
    data = (fives[..., 0] << 10 | fives[..., 1] << 5 | fives[..., 2])[::-1].astype("<u2").tobytes()
    yield PictureFile("bmp-16", bmp(WIDTH, HEIGHT, 16, data), rounded.copy())
    rounded[..., 1] = (sixes[..., 1] * (255 / 63) + 0.5).astype(numpy.uint8)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    data = (fives[..., 0] << 11 | sixes[..., 1] << 5 | fives[..., 2])[::-1].astype("<u2").tobytes()
    yield PictureFile("bmp-16-masks", bmp(WIDTH, HEIGHT, 16, data, colors=masks, compression=3), rounded.copy())
    masks = struct.pack("<III", 0xFF0000, 0x00FF00, 0x0000FF)
    data = numpy.pad(pixels[::-1, :, ::-1], ((0, 0), (0, 0), (0, 1)), constant_values=DECOY).tobytes()
    yield read_by_pillow("bmp-32-masks", bmp(WIDTH, HEIGHT, 32, data, colors=masks, compression=3))
    yield read_by_pillow("bmp-32", bmp(WIDTH, HEIGHT, 32, data))
    core = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    data = numpy.ascontiguousarray(pixels[::-1, :, ::-1]).tobytes()
    head = struct.pack("<2sIHHI", b"BM", 26 + len(data), 0, 0, 26)
    yield read_by_pillow("bmp-os2", head + core + data)


def tiffs() -> Iterator[PictureFile]:
    yield from tiffs_of_pillow()
    yield from tiffs_of_tifffile()


def tiffs_of_pillow() -> Iterator[PictureFile]:
    lossless = {"raw": None, "lzw": "tiff_lzw", "deflate": "tiff_adobe_deflate", "packbits": "packbits"}
    images = {
        "rgb": rgb(),
        "rgba": rgba(),
        "grey": rgb().convert("L"),
        "grey-alpha": grey_alpha(),
        "palette": palette(200),
        "1": rgb().convert("1"),
        "cmyk": rgb().convert("CMYK"),
    }
    for name, image in images.items():
        for kind, compression in lossless.items():
            yield read_by_pillow(f"tiff-{name}-{kind}", saved(image, format="TIFF", compression=compression))
    for kind in ("lzw", "deflate"):
        options = {"compression": lossless[kind], "tiffinfo": {317: 2}}
        yield read_by_pillow(f"tiff-predictor-{kind}", saved(rgb(), format="TIFF", **options))
    for mode in ("RGB", "L"):
        for quality in (75, 95):
            content = saved(rgb().convert(mode), format="TIFF", compression="jpeg", quality=quality)
            yield read_by_pillow(f"tiff-jpeg-{mode}-{quality}", content, is_lossy=True)
    yield read_by_pillow("tiff-group4", saved(rgb().convert("1"), format="TIFF", compression="group4"))
    strips = saved(rgb(), format="TIFF", compression="tiff_lzw", tiffinfo={278: 5})
    yield read_by_pillow("tiff-strips", strips)
    other = Image.new("RGB", (32, 32), (DECOY,) * 3)
    pages = saved(rgb(), format="TIFF", save_all=True, append_images=[other])
    yield read_by_pillow("tiff-pages", pages)
    floats = numpy.asarray(rgb().convert("L"), numpy.float32) / 200 - 0.1
    for predictor in (1, 3):
        content = saved(Image.fromarray(floats), format="TIFF", compression="tiff_adobe_deflate", tiffinfo={317: predictor})
        yield PictureFile(f"tiff-float-predictor-{predictor}", content, rgb_of_floats(floats[..., None]))


def rgb_of_floats(values: numpy.ndarray) -> numpy.ndarray:
    """0 to 1 is the whole range; beyond it is cut off."""
    values = numpy.floor(values.clip(0, 1) * numpy.float32(255) + 0.5).astype(numpy.uint8)
    return numpy.repeat(values, 3, axis=2) if values.shape[2] == 1 else values[..., :3]


def tifffile_bytes(values: numpy.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    options = {"byteorder": "<", "metadata": None} | options
    writer = {key: options.pop(key) for key in ("byteorder", "bigtiff") if key in options}
    with tifffile.TiffWriter(buffer, **writer) as tiff:
        tiff.write(values, **options)
    return buffer.getvalue()


def tiffs_of_tifffile() -> Iterator[PictureFile]:
    pixels = numpy.asarray(rgb())
    planes = numpy.ascontiguousarray(pixels.transpose(2, 0, 1))
    separate = {"photometric": "rgb", "planarconfig": "separate"}
    for order, suffix in (("<", ""), (">", "-big-endian")):
        for kind, compression in (("raw", None), ("deflate", "zlib")):
            options = {"byteorder": order, "compression": compression}
            files = {
                "strips": tifffile_bytes(pixels, photometric="rgb", rowsperstrip=7, **options),
                "tiles": tifffile_bytes(pixels, photometric="rgb", tile=(32, 32), **options),
                "tiles-beyond": tifffile_bytes(pixels, photometric="rgb", tile=(48, 80), **options),
                "planes": tifffile_bytes(planes, **separate, **options),
                "planes-tiles": tifffile_bytes(planes, **separate, tile=(16, 32), **options),
                "bigtiff": tifffile_bytes(pixels, photometric="rgb", bigtiff=True, **options),
            }
            for name, content in files.items():
                yield PictureFile(f"tiff-{name}-{kind}{suffix}", content, pixels)
            for channels in (1, 3, 4):
                values = deep(channels)
                photometric = "minisblack" if channels == 1 else "rgb"
                extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
                content = tifffile_bytes(values.squeeze(), photometric=photometric, **extra, **options)
                yield PictureFile(f"tiff-16-{channels}-{kind}{suffix}", content, upper_bytes(values))
            for bits in (16, 32, 64):
                floats = (pixels / 200 - 0.1).astype(f"float{bits}")
                content = tifffile_bytes(floats, photometric="rgb", **options)
                yield PictureFile(f"tiff-float{bits}-{kind}{suffix}", content, rgb_of_floats(floats.astype(numpy.float32)))
    white_is_zero = tifffile_bytes(255 - pixels[..., 0], photometric="miniswhite")
    yield PictureFile("tiff-white-is-zero", white_is_zero, numpy.repeat(pixels[..., :1], 3, axis=2))
    cmyk = numpy.asarray(rgb().convert("CMYK")).transpose(2, 0, 1)
    expected = numpy.asarray(Image.fromarray(numpy.ascontiguousarray(cmyk.transpose(1, 2, 0)), "CMYK").convert("RGB"))
    content = tifffile_bytes(numpy.ascontiguousarray(cmyk), photometric="separated", planarconfig="separate")
    yield PictureFile("tiff-cmyk-planes", content, expected)
