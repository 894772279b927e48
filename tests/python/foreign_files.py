"""Files that are no pictures read here, made by whatever writes them, and the word that names each in an error."""

from __future__ import annotations

import base64
import gzip
import io
import struct
import tarfile
import zipfile
from dataclasses import dataclass
from typing import Iterator

import numpy

from picture_files import rgb, saved


@dataclass(frozen=True)
class ForeignFile:
    name: str
    content: bytes
    # In the error's detail, and in its hint.
    named: str
    hint: str


def every_foreign_file() -> list[ForeignFile]:
    """All of them, names unique."""
    makers = (pictures, camera_files, documents, films_and_sounds, archives, texts, others)
    return [file for maker in makers for file in maker()]


def pictures() -> Iterator[ForeignFile]:
    """Pictures in formats that are not read; the first ones by Pillow."""
    written = {
        "AVIF": "AVIF", "JPEG2000": "JPEG 2000", "ICO": "ICO", "ICNS": "ICNS", "DDS": "DDS", "PPM": "Netpbm", "SGI": "SGI",
        "QOI": "QOI",
    }  # fmt: skip
    for format, named in written.items():
        image = rgb().resize((32, 32))
        yield ForeignFile(f"pillow-{format}", saved(image, format=format), named, "Convert it")
    heads = {
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        "heic-as-mif1": (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "HEIC"),
        "avif-as-mif1": (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        "heif": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf", "HEIF"),
        "jxl": (b"\xff\x0a\xfa\x7f\x01\x90", "JPEG XL"),
        "jxl-in-boxes": (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", "JPEG XL"),
        "j2k": (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
        "jpeg-ls": (b"\xff\xd8\xff\xf7\0\x0b\x08", "JPEG-LS"),
        "jpeg-xr": (b"II\xbc\x01\x20\0\0\0", "JPEG XR"),
        "psd": (b"8BPS\0\1\0\0\0\0\0\0\0\3", "Photoshop"),
        "xcf": (b"gimp xcf v011\0", "GIMP"),
        "exr": (b"v/1\x01\x02\0\0\0", "OpenEXR"),
        "hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance"),
        "fits": (b"SIMPLE  =                    T", "FITS"),
        "dicom": (bytes(128) + b"DICM\2\0\0\0UL", "DICOM"),
    }
    for name, (head, named) in heads.items():
        yield ForeignFile(name, head + bytes(200), named, "Convert it")


def camera_files() -> Iterator[ForeignFile]:
    heads = {
        "cr2": (b"II*\0\x10\0\0\0CR\2\0", "CR2"),
        "cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "CR3"),
        "orf": (b"IIRO\x08\0\0\0", "ORF"),
        "rw2": (b"IIU\0\x18\0\0\0", "RW2"),
        "raf": (b"FUJIFILMCCD-RAW 0201FF", "RAF"),
    }
    for name, (head, named) in heads.items():
        yield ForeignFile(name, head + bytes(200), named, "JPEG that the camera keeps")


def documents() -> Iterator[ForeignFile]:
    yield ForeignFile("pdf", saved(rgb(), format="PDF"), "PDF", "Render")
    yield ForeignFile("eps", saved(rgb(), format="EPS"), "PostScript", "Render")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    for name, start in (
        ("svg", b""),
        ("svg-xml", b'<?xml version="1.0" encoding="UTF-8"?>\n'),
        ("svg-comment", b"<!-- Generator: a program -->\n"),
        ("svg-doctype", b'<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd">\n'),
        ("svg-bom", b"\xef\xbb\xbf\n"),
    ):
        yield ForeignFile(name, start + svg, "SVG", "Render")


def films_and_sounds() -> Iterator[ForeignFile]:
    yield ForeignFile("mp4", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(99), "MP4", "frames")
    yield ForeignFile("quicktime", b"\0\0\0\x14ftypqt  \0\0\2\0qt  " + bytes(99), "QuickTime", "frames")
    yield ForeignFile("webm", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1" + bytes(99), "WebM", "frames")
    yield ForeignFile("avi", b"RIFF\x24\0\0\0AVI LIST" + bytes(99), "AVI", "frames")
    yield ForeignFile("wav", b"RIFF\x24\0\0\0WAVEfmt " + bytes(99), "WAV", "JPEG")


def archives() -> Iterator[ForeignFile]:
    picture = saved(rgb(), format="PNG")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("picture.png", picture)
    yield ForeignFile("zip", archive.getvalue(), "zip", "Unpack")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        member = tarfile.TarInfo("picture.png")
        member.size = len(picture)
        file.addfile(member, io.BytesIO(picture))
    yield ForeignFile("tar", archive.getvalue(), "tar", "Unpack")
    yield ForeignFile("gzip", gzip.compress(picture), "gzip", "Unpack")
    yield ForeignFile("7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(99), "7z", "Unpack")


def texts() -> Iterator[ForeignFile]:
    pages = (b"<!DOCTYPE html>\n<html><body>404</body></html>", b"<html><head></head></html>", b"\n\n<HTML><BODY>no</BODY></HTML>")
    for number, page in enumerate(pages):
        yield ForeignFile(f"html-{number}", page, "HTML", "web page")
    yield ForeignFile("base64", base64.encodebytes(saved(rgb(), format="PNG")), "base64", "bytes")
    yield ForeignFile("data-url", b"data:image/png;base64,iVBORw0KGgo=", "data URL", "bytes")
    yield ForeignFile("json", b'{"error": "not found"}', "JSON", "bytes")
    yield ForeignFile("path", b"/home/somebody/photo.jpg", "text", "bytes")
    yield ForeignFile("text", "Größe: 3 × 4".encode(), "text", "bytes")
    yield ForeignFile("utf-16", "photo".encode("utf-16"), "UTF-16", "bytes")
    yield ForeignFile("lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "LFS", "bytes")


def others() -> Iterator[ForeignFile]:
    array = io.BytesIO()
    numpy.save(array, numpy.zeros(3))
    yield ForeignFile("npy", array.getvalue(), "NumPy", "JPEG")
    yield ForeignFile("program", b"\x7fELF\2\1\1" + bytes(99), "program", "JPEG")
    yield ForeignFile("zeros", bytes(1000), "zeros", "JPEG")
    yield ForeignFile("rubbish", struct.pack("<8Q", *range(1 << 60, (1 << 60) + 8)), "unknown", "JPEG")
