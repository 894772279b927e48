"""Faster and Mask R-CNN with a feature pyramid, torchvision's, judged by pycocotools.

Ren et al., arXiv 1506.01497; He et al., arXiv 1703.06870; Lin et al., arXiv 1612.03144.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy
import torch
from pycocotools import mask as run_lengths
from pycocotools.cocoeval import COCOeval
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from .detection_data import Detection, open_split
from .initialisation import resnet
from .protocol import Model, Protocol
from .training import batches, train

# The smallest anchor on an image whose shorter side is 800 pixels; others scale with the image.
ANCHOR_PX_OF_800 = 32
# Resolution of the pooled regions that boxes are read from, in torchvision as in Detectron2.
BOX_POOL = 7


def build(model: Model, weights: Path | None, classes: int) -> nn.Module:
    """Mask R-CNN or Faster R-CNN on a ResNet; `classes` counts the background.

    The parts are torchvision's own builders' parts; they are put together here, since those builders
    fix the number of channels. With 256 and 1,024 the network is that of `maskrcnn_resnet50_fpn`.
    """
    backbone = resnet(model.architecture, weights, model.norm)
    layers = {f"layer{stage}": str(stage - 1) for stage in range(1, 5)}
    inputs = [backbone.fc.in_features // 2 ** (3 - stage) for stage in range(4)]
    pyramid = BackboneWithFPN(backbone, layers, inputs, model.fpn_channels)
    smallest = max(8, round(ANCHOR_PX_OF_800 * model.shorter_side_px[-1] / 800))
    anchors = AnchorGenerator(tuple((smallest * 2**level,) for level in range(5)), ((0.5, 1.0, 2.0),) * 5)
    options: dict[str, Any] = {
        "rpn_anchor_generator": anchors,
        "box_head": TwoMLPHead(model.fpn_channels * BOX_POOL**2, model.box_head_channels),
        "box_predictor": FastRCNNPredictor(model.box_head_channels, classes),
        "box_batch_size_per_image": model.proposals_per_image,
        "min_size": model.shorter_side_px,
        "max_size": model.longer_side_px,
    }
    if not model.masks:
        return FasterRCNN(pyramid, **options)
    width = model.fpn_channels
    return MaskRCNN(pyramid, **options, mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
                    mask_predictor=MaskRCNNPredictor(width, width, classes))


def loss_of(device: torch.device):
    """Sum of the detector's losses."""
    def loss(model: nn.Module, batch: list) -> torch.Tensor:
        images = [image.to(device) for image, _ in batch]
        wanted = ("boxes", "labels", "masks")
        targets = [{key: target[key].to(device) for key in wanted if key in target} for _, target in batch]
        return sum(model(images, targets).values())
    return loss


def run(protocol: Protocol, folder: Path, weights: Path | None, seed: int, device: torch.device,
        label: str) -> dict[str, float]:
    """Fine-tunes and tests; AP, AP50 and AP75 of boxes, and of masks where there are any, in percent."""
    data = open_split(protocol.data, folder, "train")
    test = open_split(protocol.data, folder, "val")
    if data.label_of != test.label_of:
        raise ValueError("train and val have different categories")
    model = build(protocol.model, weights, len(data.label_of) + 1).to(device)
    train(model, batches(data, protocol.training, seed, list), protocol.training, loss_of(device), label)
    return judge(model, test, protocol.model.masks, device)


@torch.no_grad()
def judge(model: nn.Module, test: Detection, masks: bool, device: torch.device) -> dict[str, float]:
    """What pycocotools says of the model's answers."""
    model.eval()
    answers = []
    for image, target in (test[index] for index in range(len(test))):
        answers += answers_of(model([image.to(device)])[0], target["image_id"], test.category_of)
    return scores(test, answers, masks)


def answers_of(found: dict[str, torch.Tensor], image_id: int, category_of: dict[int, int]) -> list[dict[str, Any]]:
    """One image's detections in COCO's format of results."""
    answers = []
    for index, (x1, y1, x2, y2) in enumerate(found["boxes"].tolist()):
        answer = {"image_id": image_id, "category_id": category_of[int(found["labels"][index])],
                  "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(found["scores"][index])}
        if "masks" in found:
            mask = (found["masks"][index, 0] > 0.5).cpu().numpy().astype(numpy.uint8)
            answer["segmentation"] = run_lengths.encode(numpy.asfortranarray(mask))
        answers.append(answer)
    return answers


def scores(test: Detection, answers: list[dict[str, Any]], masks: bool) -> dict[str, float]:
    """AP over IoU 0.50 to 0.95, at 0.50 and at 0.75, in percent."""
    kinds = {"box": "bbox", "mask": "segm"} if masks else {"box": "bbox"}
    result = {}
    for name, kind in kinds.items():
        found = (0.0, 0.0, 0.0)
        if answers:
            with contextlib.redirect_stdout(io.StringIO()):
                judged = COCOeval(test.coco, test.coco.loadRes(answers), kind)
                judged.params.imgIds = test.ids
                judged.evaluate()
                judged.accumulate()
                judged.summarize()
            found = judged.stats[:3]
        for suffix, value in zip(("AP", "AP50", "AP75"), found):
            result[f"{name} {suffix}"] = 100.0 * float(value)
    return result
