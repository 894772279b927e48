"""Photographs that scikit-image ships, read from its folder without importing it, and copies of
them whose every point is known to come from a point of the original."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy
from PIL import Image, ImageEnhance


def folder() -> Path:
    """The folder of scikit-image's pictures."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.submodule_search_locations, "scikit-image is missing: make setup-python"
    return Path(spec.submodule_search_locations[0]) / "data"


def photograph(name: str) -> Image.Image:
    """One of the photographs, such as `astronaut.png`, as RGB."""
    with Image.open(folder() / name) as image:
        return image.convert("RGB")


def window(image: Image.Image, left: int, top: int, width: int, height: int) -> Image.Image:
    """A part of a photograph, at its own resolution."""
    assert left + width <= image.width and top + height <= image.height
    return image.crop((left, top, left + width, top + height))


def png(image: Image.Image) -> bytes:
    """The image without loss, as the server gets it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def turned_and_brightened(image: Image.Image, degrees: float, brightness: float) -> Image.Image:
    """A copy of the same size, turned counter-clockwise about its centre, corners black."""
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    return ImageEnhance.Brightness(turned).enhance(brightness)


def turn_points(points: numpy.ndarray, image: Image.Image, degrees: float) -> numpy.ndarray:
    """Where points `[P, 2]` of an image are in `turned_and_brightened`, pixel centres at integers."""
    angle = numpy.deg2rad(degrees)
    centre = (numpy.array([image.width, image.height]) - 1) / 2
    # y points down, so a counter-clockwise turn has the signs of a clockwise one.
    rotation = numpy.array([[numpy.cos(angle), numpy.sin(angle)], [-numpy.sin(angle), numpy.cos(angle)]])
    return (points - centre) @ rotation.T + centre


def is_inside(points: numpy.ndarray, image: Image.Image, margin: float) -> numpy.ndarray:
    """Which points `[P, 2]` are at least `margin` pixels from every edge."""
    x, y = points.T
    return (x >= margin) & (y >= margin) & (x <= image.width - 1 - margin) & (y <= image.height - 1 - margin)
