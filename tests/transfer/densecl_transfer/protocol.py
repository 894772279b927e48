"""Protocols: what is fine-tuned, on what, for how long. One TOML file each, every key known."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TASKS = ("detection", "segmentation")
FORMATS = {"detection": ("coco", "voc"), "segmentation": ("voc", "cityscapes")}


class ProtocolError(ValueError):
    """A protocol that says something unknown or impossible."""


@dataclass(frozen=True)
class Synth:
    """Arguments of `densecl-trainer synth`, which makes the data where no folder is given."""

    kind: str
    count: int
    val_count: int
    size: str
    seed: int


@dataclass(frozen=True)
class Data:
    """Where the images and their labels are, below the folder of the data."""

    format: str
    # coco: two entries each, the file of annotations and the folder of images.
    # voc: names such as `VOC2012/train`, several are taken together.
    # cityscapes: a split such as `train`.
    train: tuple[str, ...]
    val: tuple[str, ...]
    # Number of categories of a segmentation with the background; detection counts its own.
    classes: int | None = None
    # All categories taken as one: objects against everything else, which a short training can learn.
    single_category: bool = False
    synth: Synth | None = None


@dataclass(frozen=True)
class Model:
    """The network around the backbone."""

    architecture: str
    # BatchNorm in fine-tuning: `batch` trains it on the batch's statistics, as MoCo's and DenseCL's
    # protocols do (synchronised over devices there); `frozen` keeps the pre-trained statistics.
    norm: str = "batch"
    # Detection: masks as well as boxes (Mask R-CNN), or boxes alone (Faster R-CNN).
    masks: bool = False
    fpn_channels: int = 256
    box_head_channels: int = 1024
    proposals_per_image: int = 512
    # Shorter sides that training picks from; testing takes the last. The longer side is at most so.
    shorter_side_px: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    longer_side_px: int = 1333
    # Segmentation: stride of the map that is classified; the backbone is dilated to reach it.
    output_stride: int = 16
    crop_px: int = 512
    scale: tuple[float, float] = (0.5, 2.0)


@dataclass(frozen=True)
class Training:
    """The optimiser and its schedule."""

    iterations: int
    batch: int
    learning_rate: float
    # `sgd` with momentum 0.9, as in the papers; `adamw` learns something in a few hundred iterations.
    optimizer: str = "sgd"
    weight_decay: float = 1e-4
    warmup_iterations: int = 0
    # `steps`: a tenth at each of the marks, which are shares of the iterations; `poly`: (1 − t)^0.9.
    schedule: str = "steps"
    marks: tuple[float, ...] = (2 / 3, 8 / 9)
    # Processes that load images.
    workers: int = 0


@dataclass(frozen=True)
class Protocol:
    """Everything that decides a result but the initialisation, the seed and the data."""

    name: str
    task: str
    data: Data
    model: Model
    training: Training
    description: str = field(default="", compare=False)

    @staticmethod
    def read(path: Path) -> Protocol:
        """Reads a protocol, which is a file to copy and change.

        Raises ProtocolError with the key that is unknown, missing or impossible.
        """
        document = tomllib.loads(path.read_text())
        return Protocol.of({"name": path.stem, **document}, str(path))

    @staticmethod
    def of(document: dict[str, Any], where: str) -> Protocol:
        """A protocol from its document."""
        protocol = build(Protocol, document, where)
        if protocol.task not in TASKS:
            raise ProtocolError(f"{where}: task is `{protocol.task}`, known are {', '.join(TASKS)}")
        known = FORMATS[protocol.task]
        if protocol.data.format not in known:
            raise ProtocolError(f"{where}: data.format is `{protocol.data.format}`; for "
                                f"{protocol.task} known are {', '.join(known)}")
        if protocol.task == "segmentation" and not protocol.data.classes:
            raise ProtocolError(f"{where}: a segmentation needs data.classes")
        if protocol.task == "segmentation" and protocol.data.single_category and protocol.data.classes != 2:
            raise ProtocolError(f"{where}: with data.single_category there are 2 classes, with the background")
        if protocol.model.norm not in ("batch", "frozen"):
            raise ProtocolError(f"{where}: model.norm is `batch` or `frozen`")
        if protocol.model.output_stride not in (8, 16, 32):
            raise ProtocolError(f"{where}: model.output_stride is 8, 16 or 32")
        if protocol.training.optimizer not in ("sgd", "adamw"):
            raise ProtocolError(f"{where}: training.optimizer is `sgd` or `adamw`")
        if protocol.training.schedule not in ("steps", "poly"):
            raise ProtocolError(f"{where}: training.schedule is `steps` or `poly`")
        return protocol

    def document(self) -> dict[str, Any]:
        """The protocol as plain values, to be kept beside results."""
        return dataclasses.asdict(self)


def build(kind: type, document: dict[str, Any], where: str) -> Any:
    """A dataclass from a table of TOML, nested ones and tuples included."""
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise ProtocolError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    values = {}
    for name, value in document.items():
        nested = [t for t in (hints[name], *typing.get_args(hints[name])) if dataclasses.is_dataclass(t)]
        if nested and isinstance(value, dict):
            values[name] = build(nested[0], value, f"{where}, {name}")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**values)
    except TypeError as error:
        raise ProtocolError(f"{where}: {error}") from None
