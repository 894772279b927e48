"""Writes augmentation.safetensors: what torchvision makes of small images with given parameters.

    pip install torch==2.11.0 torchvision==0.26.0 safetensors numpy
    python tests/golden/make_augmentation.py tests/golden/augmentation.safetensors

The tests of trainer/src/augment compare each operation, and two whole chains, with what is in
the file. Everything is float32 in [0, 1] unless it says otherwise; N images, views of S pixels:

    images                       [N, 40, 40, 3] uint8
    crop/<name>/windows          [N, 4] int64: left, top, width, height
    crop/<name>/result           [N, 3, S, S]; antialiased bilinear
    colour/input                 [N, 3, S, S], and one result of each operation:
    <operation>/parameter        [N]: a factor, a share of the colour circle, or a standard deviation
    <operation>/result           [N, 3, S, S]
    chain/<name>/<parameter>     [N]; 1, 1, 1, 0, 0 and 0 where an operation is left out
    chain/<name>/result          [N, 3, S, S], normalised with ImageNet's mean and standard deviation

The order of a chain's colour operations is in the metadata, `chain/<name>/order`.
"""

import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional as tv

CANVAS_PX = 40
VIEW_PX = 20
# Beyond this many standard deviations to either side a Gaussian is below float32.
BLUR_RADIUS_SIGMAS = 4.5
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

ADJUST = {
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
    "hue": tv.adjust_hue,
}


def images():
    """A smooth picture, a noisy one, blocks of pure and equal colours, and thin stripes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:CANVAS_PX, :CANVAS_PX] / (CANVAS_PX - 1)
    smooth = np.stack([x, y, 0.5 + 0.5 * np.sin(9 * x * y)], -1)
    noisy = rng.random((CANVAS_PX, CANVAS_PX, 3)) ** 2
    # Every colour whose channels are 0, one half or 1: all the ties that a hue can meet.
    levels = np.array([0.0, 0.5, 1.0])
    palette = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(27, 3)
    blocks = np.kron(palette[np.arange(100) % 27].reshape(10, 10, 3), np.ones((4, 4, 1)))
    stripes = np.where(((x + y) * 30 % 2 < 1)[..., None], [0.9, 0.2, 0.1], [0.05, 0.3, 0.8])
    return torch.from_numpy((255 * np.stack([smooth, noisy, blocks, stripes])).round().astype(np.uint8))


def each(function, batch, parameters):
    return torch.stack([function(image, parameter) for image, parameter in zip(batch, parameters.tolist())])


def crop(image, window):
    left, top, width, height = window
    return tv.resized_crop(image, top, left, height, width, [VIEW_PX, VIEW_PX], antialias=True)


def blur(image, sigma):
    radius = int(np.ceil(BLUR_RADIUS_SIGMAS * sigma))
    return tv.gaussian_blur(image, [2 * radius + 1, 2 * radius + 1], [sigma, sigma]) if sigma > 0 else image


def chain(batch, p, order):
    x = each(crop, batch, p["windows"])
    for step in order:
        # A factor of 1 and a turn of 0 change nothing; torchvision's users skip them.
        neutral = 0.0 if step == "hue" else 1.0
        x = each(lambda image, v, f=ADJUST[step], n=neutral: image if v == n else f(image, v), x, p[step])
    x = each(lambda image, on: tv.rgb_to_grayscale(image, 3) if on else image, x, p["grey"])
    x = each(blur, x, p["blur"])
    x = each(lambda image, on: tv.horizontal_flip(image) if on else image, x, p["flip"])
    return tv.normalize(x, MEAN, STD)


def main():
    floats = lambda *values: torch.tensor(values, dtype=torch.float32)
    pictures = images()
    batch = pictures.permute(0, 3, 1, 2).float() / 255
    windows = {
        "smaller": torch.tensor([[0, 0, 40, 40], [3, 1, 36, 29], [0, 13, 21, 27], [7, 0, 33, 40]]),
        "larger": torch.tensor([[11, 5, 19, 7], [0, 0, 13, 18], [30, 29, 10, 11], [2, 36, 3, 4]]),
        "mixed": torch.tensor([[0, 20, 40, 9], [25, 0, 15, 40], [39, 0, 1, 40], [10, 10, 20, 20]]),
    }
    out, metadata = {"images": pictures}, {}
    for name, window in windows.items():
        out[f"crop/{name}/windows"] = window
        out[f"crop/{name}/result"] = each(crop, batch, window)

    view = out["colour/input"] = each(crop, batch, windows["smaller"])
    operations = ADJUST | {"grey": lambda image, on: tv.rgb_to_grayscale(image, 3) if on else image, "blur": blur}
    parameters = {
        "brightness": floats(0.6, 1.4, 1.1, 0.8),
        "contrast": floats(1.4, 0.6, 0.9, 1.2),
        "saturation": floats(0.7, 1.4, 1.3, 0.6),
        "hue": floats(0.1, -0.1, 0.05, -0.5),
        "grey": floats(1, 0, 1, 1),
        "blur": floats(0.1, 0.7, 1.3, 2.0),
    }
    for name, parameter in parameters.items():
        out[f"{name}/parameter"] = parameter
        out[f"{name}/result"] = each(operations[name], view, parameter)

    chains = {
        "published": (["brightness", "contrast", "saturation", "hue"], {
            "windows": windows["smaller"],
            "brightness": floats(0.7, 1.0, 1.3, 1.05), "contrast": floats(1.2, 1.0, 0.65, 1.4),
            "saturation": floats(1.3, 1.0, 0.8, 0.6), "hue": floats(-0.07, 0.0, 0.1, 0.03),
            "grey": floats(0, 0, 0, 1), "blur": floats(1.7, 0.4, 0.0, 1.0), "flip": floats(1, 0, 1, 0)}),
        "turned": (["hue", "contrast", "brightness", "saturation"], {
            "windows": windows["mixed"],
            "brightness": floats(1.4, 0.6, 1.0, 0.9), "contrast": floats(0.8, 1.1, 1.0, 0.6),
            "saturation": floats(0.6, 1.4, 1.0, 1.2), "hue": floats(0.1, -0.1, 0.0, 0.08),
            "grey": floats(0, 1, 0, 0), "blur": floats(0.0, 2.0, 0.9, 0.1), "flip": floats(0, 1, 1, 0)}),
    }
    for name, (order, p) in chains.items():
        metadata[f"chain/{name}/order"] = ",".join(order)
        out |= {f"chain/{name}/{key}": value for key, value in p.items()}
        out[f"chain/{name}/result"] = chain(batch, p, order)
    save_file({key: value.clone().contiguous() for key, value in out.items()}, sys.argv[1], metadata)


if __name__ == "__main__":
    main()
