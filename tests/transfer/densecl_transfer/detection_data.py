"""Boxes and masks from folders in COCO's and PASCAL VOC's formats, as torchvision wants them.

Both become a COCO document in memory, so that pycocotools judges either.
"""

from __future__ import annotations

import contextlib
import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

from .protocol import Data


class DataError(ValueError):
    """A folder that is not what the protocol says."""


def open_split(data: Data, folder: Path, split: str) -> Detection:
    """The images of `train` or `val`."""
    names = getattr(data, split)
    if data.format == "coco":
        if len(names) != 2:
            raise DataError(f"data.{split}: expected the annotations' file and the images' folder")
        annotations, images = (folder / name for name in names)
        if not annotations.is_file():
            raise DataError(f"{annotations} does not exist; the protocol expects COCO's format there")
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(annotations))
    else:
        coco, images = voc_as_coco([folder / name for name in names]), Path("/")
    if data.single_category:
        merge_categories(coco)
    return Detection(coco, images, training=split == "train")


def merge_categories(coco: COCO) -> None:
    """Makes all categories one, `object`."""
    coco.dataset["categories"] = [{"id": 1, "name": "object"}]
    for annotation in coco.dataset["annotations"]:
        annotation["category_id"] = 1
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()


class Detection(Dataset):
    """Images `[3, H, W]` in [0, 1] with boxes `[n, 4]` (x1, y1, x2, y2), labels from 1, and masks.

    Training skips images without annotations and flips half of the others.
    """

    def __init__(self, coco: COCO, images: Path, training: bool) -> None:
        self.coco, self.images, self.training = coco, images, training
        categories = sorted(coco.getCatIds())
        self.label_of = {category: label for label, category in enumerate(categories, start=1)}
        self.category_of = {label: category for category, label in self.label_of.items()}
        used = {annotation["image_id"] for annotation in coco.anns.values() if not annotation.get("iscrowd")}
        self.ids = [image for image in sorted(coco.getImgIds()) if not training or image in used]
        if not self.ids:
            raise DataError(f"{images} has no image with annotations")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        image_id = self.ids[index]
        record = self.coco.loadImgs([image_id])[0]
        with Image.open(self.images / record["file_name"]) as file:
            image = transforms.to_dtype(transforms.pil_to_tensor(file.convert("RGB")), torch.float32, scale=True)
        if tuple(image.shape[1:]) != (record["height"], record["width"]):
            raise DataError(f"{record['file_name']} is {image.shape[2]}x{image.shape[1]}, its annotations are of "
                            f"{record['width']}x{record['height']}")
        target = {"image_id": image_id}
        if not self.training:
            return image, target
        annotations = [a for a in self.coco.imgToAnns[image_id] if not a.get("iscrowd") and min(a["bbox"][2:]) > 0]
        boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        target["boxes"] = boxes
        target["labels"] = torch.tensor([self.label_of[a["category_id"]] for a in annotations], dtype=torch.int64)
        if annotations and all("segmentation" in a for a in annotations):
            target["masks"] = torch.stack([torch.from_numpy(self.coco.annToMask(a)) for a in annotations])
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
            target["boxes"] = torch.stack([image.shape[2] - boxes[:, 2], boxes[:, 1],
                                           image.shape[2] - boxes[:, 0], boxes[:, 3]], dim=1)
            if "masks" in target:
                target["masks"] = target["masks"].flip(-1)
        return image, target


def voc_as_coco(splits: list[Path]) -> COCO:
    """PASCAL VOC's annotations of splits such as `VOC2007/trainval` as one COCO document.

    VOC counts pixels from 1 and includes the last one. What VOC calls difficult is neither to be
    found nor a mistake to find, which COCO's judges know as a crowd.
    """
    images, annotations, names = [], [], set()
    for split in splits:
        year, list_file = split.parent, split.parent / "ImageSets" / "Main" / f"{split.name}.txt"
        if not list_file.is_file():
            raise DataError(f"{list_file} does not exist; the protocol expects PASCAL VOC's format")
        for line in list_file.read_text().split("\n"):
            if not line.strip():
                continue
            name = line.split()[0]
            root = ElementTree.parse(year / "Annotations" / f"{name}.xml").getroot()
            image_id = len(images) + 1
            size = {key: int(root.findtext(f"size/{key}")) for key in ("width", "height")}
            file = (year / "JPEGImages" / root.findtext("filename", f"{name}.jpg")).resolve()
            images.append({"id": image_id, "file_name": str(file), **size})
            for found in root.iter("object"):
                x1, y1, x2, y2 = (float(found.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
                names.add(found.findtext("name"))
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image_id, "category_id": found.findtext("name"),
                    "bbox": [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1], "area": (x2 - x1 + 1) * (y2 - y1 + 1),
                    "iscrowd": int(found.findtext("difficult", "0")),
                })
    numbers = {name: number for number, name in enumerate(sorted(names), start=1)}
    for annotation in annotations:
        annotation["category_id"] = numbers[annotation["category_id"]]
    coco = COCO()
    coco.dataset = {"images": images, "annotations": annotations,
                    "categories": [{"id": number, "name": name} for name, number in numbers.items()]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
