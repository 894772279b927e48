"""Fully convolutional networks for segmentation, with torchvision's head, judged by mIoU.

Long et al., arXiv 1411.4038; dilation as in Yu and Koltun, arXiv 1511.07122.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torch.utils.data import default_collate

from .initialisation import resnet
from .protocol import Protocol
from .segmentation_data import IGNORED, Segmentation, open_split
from .training import batches, train


def build(protocol: Protocol, weights: Path | None) -> nn.Module:
    """torchvision's FCN on a dilated ResNet: `[N, 3, H, W]` to `out` `[N, classes, H, W]`."""
    backbone = resnet(protocol.model.architecture, weights, protocol.model.norm)
    dilate(backbone, protocol.model.output_stride)
    channels = backbone.fc.in_features
    backbone = IntermediateLayerGetter(backbone, {"layer4": "out"})
    return FCN(backbone, FCNHead(channels, protocol.data.classes))


def dilate(backbone: nn.Module, output_stride: int) -> None:
    """Takes the strides out of the last stages and dilates what follows, weights untouched.

    Of a bottleneck it is what torchvision's `replace_stride_with_dilation` does; that refuses basic
    blocks, this does not. The 3x3 convolutions of a stage's first block keep the dilation from before.
    """
    dilation, stride = 1, 8
    for stage in (backbone.layer3, backbone.layer4):
        stride *= 2
        before, dilated = dilation, stride > output_stride
        dilation *= 2 if dilated else 1
        for block, parent in enumerate(stage):
            first = next(m for m in parent.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
            for module in parent.modules():
                if not isinstance(module, nn.Conv2d):
                    continue
                if dilated:
                    module.stride = (1, 1)
                if module.kernel_size == (3, 3):
                    reach = before if block == 0 and module is first else dilation
                    module.dilation = module.padding = (reach, reach)


def run(protocol: Protocol, folder: Path, weights: Path | None, seed: int, device: torch.device,
        label: str) -> dict[str, float]:
    """Fine-tunes and tests; mean intersection over union and pixel accuracy, in percent."""
    data = open_split(protocol.data, folder, "train", protocol.model)
    test = open_split(protocol.data, folder, "val", protocol.model)
    model = build(protocol, weights).to(device)

    def loss_of(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        images, labels = (tensor.to(device) for tensor in batch)
        return cross_entropy(model(images)["out"], labels, ignore_index=IGNORED)

    loader = batches(data, protocol.training, seed, default_collate)
    train(model, loader, protocol.training, loss_of, label)
    return scores(confusion(model, test, protocol.data.classes, device))


@torch.no_grad()
def confusion(model: nn.Module, test: Segmentation, classes: int, device: torch.device) -> torch.Tensor:
    """Pixels by true and by found category, `[classes, classes]`; images are tested whole, one by one."""
    model.eval()
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for image, labels in (test[index] for index in range(len(test))):
        found = model(image[None].to(device))["out"][0].argmax(0).cpu()
        counts += count(labels, found, classes)
    return counts


def count(labels: torch.Tensor, found: torch.Tensor, classes: int) -> torch.Tensor:
    """Confusion matrix of one image, `[H, W]` both."""
    known = labels != IGNORED
    return torch.bincount(labels[known] * classes + found[known], minlength=classes**2).reshape(classes, classes)


def scores(counts: torch.Tensor) -> dict[str, float]:
    """mIoU over the categories that occur, in the truth or in the answers, and pixel accuracy."""
    counts = counts.double()
    both = counts.diagonal()
    either = counts.sum(0) + counts.sum(1) - both
    occurs = either > 0
    return {"mIoU": 100.0 * float((both[occurs] / either[occurs]).mean()),
            "accuracy": 100.0 * float(both.sum() / counts.sum())}
