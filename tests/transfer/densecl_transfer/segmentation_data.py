"""Label maps from folders in PASCAL VOC's and Cityscapes' formats."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch
from PIL import Image
from torch.nn.functional import pad
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from .detection_data import DataError
from .protocol import Data, Model

# Pixels of no category: they are neither trained on nor counted.
IGNORED = 255
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Cityscapes' 19 categories that are judged, by the numbers of its `labelIds`.
CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def open_split(data: Data, folder: Path, split: str, model: Model) -> Segmentation:
    """The images of `train` or `val`."""
    pairs = []
    for name in getattr(data, split):
        pairs += (voc if data.format == "voc" else cityscapes)(folder / name)
    missing = [str(path) for pair in pairs for path in pair if not path.is_file()]
    if missing:
        raise DataError(f"{len(missing)} files are missing, the first is {missing[0]}")
    return Segmentation(pairs, data, model if split == "train" else None)


def voc(split: Path) -> list[tuple[Path, Path]]:
    """Image and label map of every name in `ImageSets/Segmentation/<split>.txt`."""
    year = split.parent
    list_file = year / "ImageSets" / "Segmentation" / f"{split.name}.txt"
    if not list_file.is_file():
        raise DataError(f"{list_file} does not exist; the protocol expects PASCAL VOC's format")
    names = list_file.read_text().split()
    return [(year / "JPEGImages" / f"{name}.jpg", year / "SegmentationClass" / f"{name}.png") for name in names]


def cityscapes(split: Path) -> list[tuple[Path, Path]]:
    """Image and label map of every city of a split."""
    images = sorted((split.parent / "leftImg8bit" / split.name).glob("*/*_leftImg8bit.png"))
    if not images:
        raise DataError(f"{split.parent}/leftImg8bit/{split.name} has no image; the protocol expects "
                        "Cityscapes' format")
    labels = split.parent / "gtFine" / split.name
    return [(image, labels / image.parent.name / image.name.replace("_leftImg8bit", "_gtFine_labelIds"))
            for image in images]


class Segmentation(Dataset):
    """Normalised images `[3, H, W]` with categories `[H, W]` int64, 255 where there is none.

    With a model's crop, images are scaled, cropped and flipped at random; else they are whole.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], data: Data, model: Model | None) -> None:
        self.pairs, self.classes, self.model = pairs, data.classes, model
        self.table = numpy.arange(256, dtype=numpy.uint8)
        if data.format == "cityscapes":
            self.table[:] = IGNORED
            self.table[list(CITYSCAPES)] = numpy.arange(len(CITYSCAPES))
        if data.single_category:
            self.table[1:IGNORED] = 1

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_path, label_path = self.pairs[index]
        with Image.open(image_path) as file:
            image = transforms.to_dtype(transforms.pil_to_tensor(file.convert("RGB")), torch.float32, scale=True)
        with Image.open(label_path) as file:
            labels = torch.from_numpy(self.table[numpy.asarray(file)]).long()
        if labels.shape != image.shape[1:]:
            raise DataError(f"{label_path} is {tuple(labels.shape)}, its image is {tuple(image.shape[1:])}")
        outside = (labels >= self.classes) & (labels != IGNORED)
        if outside.any():
            raise DataError(f"{label_path} holds category {int(labels[outside][0])} of {self.classes}")
        image = transforms.normalize(image, MEAN, DEVIATION)
        return (image, labels) if self.model is None else self.augmented(image, labels)

    def augmented(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A crop of a scaled, perhaps flipped image; what lies outside of it is of no category."""
        crop, (low, high) = self.model.crop_px, self.model.scale
        factor = low + (high - low) * float(torch.rand(()))
        size = [max(1, round(side * factor)) for side in image.shape[1:]]
        image = transforms.resize(image, size, antialias=True)
        labels = transforms.resize(labels[None], size, interpolation=InterpolationMode.NEAREST_EXACT)[0]
        below, beside = max(0, crop - size[0]), max(0, crop - size[1])
        image, labels = pad(image, (0, beside, 0, below)), pad(labels, (0, beside, 0, below), value=IGNORED)
        y, x = (int(torch.randint(0, side - crop + 1, ())) for side in labels.shape)
        image, labels = image[:, y:y + crop, x:x + crop], labels[y:y + crop, x:x + crop]
        return (image.flip(-1), labels.flip(-1)) if torch.rand(()) < 0.5 else (image, labels)
