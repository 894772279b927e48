"""Backbones: torchvision's ResNets, with random weights or with those of a file.

Weights come through `densecl-trainer convert --to torchvision`, as they would for any user of
torchvision. A tensor that did not load is an error: silently random weights are the commonest
accident of this trade.
"""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import nn

# What a backbone file does not have, and a torchvision ResNet does.
CLASSIFIER = {"fc.weight", "fc.bias"}


class InitialisationError(RuntimeError):
    """Weights that cannot be had, or do not fit."""


@dataclass(frozen=True)
class Initialisation:
    """A name for tables, and where the weights come from; None is random weights."""

    name: str
    source: Path | None

    @staticmethod
    def parse(text: str) -> Initialisation:
        """`random`, or `NAME=PATH` of anything that `densecl-trainer convert` reads."""
        if text == "random":
            return Initialisation("random", None)
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise InitialisationError(f"`{text}`: expected `random`, or NAME=PATH of a run or checkpoint")
        if not Path(path).exists():
            raise InitialisationError(f"{path} does not exist")
        return Initialisation(name, Path(path))

    def converted(self, trainer: Path, folder: Path) -> Path | None:
        """The weights under torchvision's names, made once in `folder`."""
        if self.source is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        out = folder / f"{self.name}.pth"
        command = [trainer, "convert", self.source, out, "--to", "torchvision"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode != 0:
            raise InitialisationError(f"{self.source}: {found.stderr.strip()}")
        return out


def resnet(architecture: str, weights: Path | None, norm: str) -> nn.Module:
    """torchvision's ResNet `architecture`; random weights are drawn from torch's generator.

    Raises InitialisationError with every tensor that is missing, unexpected or of another shape.
    """
    frozen = torchvision.ops.FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d
    model = torchvision.models.get_model(architecture, weights=None, norm_layer=frozen)
    if weights is None:
        return model
    state = torch.load(weights, map_location="cpu", weights_only=True)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in CLASSIFIER}
    # A frozen BatchNorm does not count its batches.
    given = {name: tensor for name, tensor in state.items()
             if name not in CLASSIFIER and (name in expected or not name.endswith("num_batches_tracked"))}
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    problems = [f"{name} is missing" for name in sorted(set(expected) - set(given) - counters)]
    problems += [f"{name} is unexpected" for name in sorted(set(given) - set(expected))]
    problems += [f"{name} is {tuple(given[name].shape)}, expected {tuple(shape)}"
                 for name, shape in expected.items() if name in given and given[name].shape != shape]
    if problems:
        raise InitialisationError(f"{weights} is not a backbone of {architecture}: {'; '.join(problems)}")
    model.load_state_dict(given, strict=False)
    return model


def fingerprint(weights: Path | None) -> str:
    """Tells files of weights apart: the beginning of the SHA-256, or `random`."""
    return "random" if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
