"""Pictures drawn at random from a photograph, for tests of many files of a kind.

Their sides are those that the server leaves as they are, so that lossless files can be compared number by number.
"""

from __future__ import annotations

from random import Random
from typing import Iterator

import numpy
from PIL import Image

from photographs import photograph, window

# Files of a kind.
COUNT = 30
SIDES = (32, 64, 96)


def varied(seed: str, count: int = COUNT) -> Iterator[tuple[Random, Image.Image]]:
    """`count` different parts of a photograph, each with a generator for whatever else is drawn."""
    whole = photograph("chelsea.png")
    for index in range(count):
        generator = Random(f"{seed} {index}")
        width, height = generator.choice(SIDES), generator.choice(SIDES)
        left, top = generator.randrange(whole.width - width), generator.randrange(whole.height - height)
        # Without the photograph's profile.
        yield generator, Image.fromarray(numpy.asarray(window(whole, left, top, width, height)))


def with_alpha(generator: Random, image: Image.Image) -> Image.Image:
    """The picture with an alpha channel in which everything occurs: clear, opaque and between."""
    values = numpy.random.default_rng(generator.randrange(1 << 30)).integers(0, 256, (image.height, image.width))
    values[: image.height // 4] = 0
    values[-(image.height // 4) :] = 255
    image = image.copy()
    image.putalpha(Image.fromarray(values.astype(numpy.uint8)))
    return image


def cut_into(generator: Random, data: bytes, pieces: int) -> list[bytes]:
    """`data` in pieces of different lengths."""
    cuts = sorted(generator.sample(range(1, len(data)), pieces - 1))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)])]
