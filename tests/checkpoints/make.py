"""Writes the files in this folder with the real `torch.save` and `pickle`.

    python tests/checkpoints/make.py

The networks are ResNet-18 with a stem of one channel, so that a file has a few kilobytes. Each
value is a function of the tensor's torchvision name and its index, exact in every floating-point
type; the Rust tests compute the same. Made with PyTorch 2.11 and NumPy 2;
classes of other packages are stand-ins of the same names. Legacy files hold addresses of the
process as keys, so they differ from run to run in that.
"""

from __future__ import annotations

import argparse
import collections
import enum
import functools
import pickle
import sys
import types
from pathlib import Path

import numpy
import torch

FOLDER = Path(__file__).resolve().parent
WIDTH = 1
PROJECTION = 4


def values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Multiples of 1/128 in [-1, 1), which bfloat16 holds, too."""
    count = int(numpy.prod(shape))
    numbers = (sum(name.encode()) * 31 + torch.arange(count) * 7) % 256
    return (numbers / 128 - 1).reshape(shape)


def backbone() -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(conv_name: str, norm: str, out: int, inp: int, kernel: int) -> None:
        shapes[f"{conv_name}.weight"] = (out, inp, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = (out,)

    conv("conv1", "bn1", WIDTH, 3, 7)
    inp = WIDTH
    for stage in range(4):
        out = WIDTH << stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            conv(f"{name}.conv1", f"{name}.bn1", out, inp, 3)
            conv(f"{name}.conv2", f"{name}.bn2", out, out, 3)
            if block == 0 and stage > 0:
                conv(f"{name}.downsample.0", f"{name}.downsample.1", out, inp, 1)
            inp = out
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = values(name, shape)
        if name.endswith("running_var"):
            tensors[name.replace("running_var", "num_batches_tracked")] = torch.tensor(3)
    return tensors


def head(name: str, dense: bool) -> dict[str, torch.Tensor]:
    """Layers 0 and 2; `name` is this project's, the values are made from it."""
    channels, tail = WIDTH * 8, (1, 1) if dense else ()
    shapes = {"0.weight": (channels, channels, *tail), "0.bias": (channels,)}
    shapes |= {"2.weight": (PROJECTION, channels, *tail), "2.bias": (PROJECTION,)}
    return {part: values(f"{name}.{part}", shape) for part, shape in shapes.items()}


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def other(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What tells a key encoder: some of the same names, with other values."""
    told = ("conv1.weight", "layer1.0.conv1.weight", "0.weight")
    return {name: tensor + 1 for name, tensor in tensors.items() if name in told}


def detectron2(name: str) -> str:
    """The renaming of Detectron2's converter for torchvision's files."""
    if "layer" not in name:
        name = "stem." + name
    for stage in (1, 2, 3, 4):
        name = name.replace(f"layer{stage}", f"res{stage + 1}")
    for norm in (1, 2, 3):
        name = name.replace(f"bn{norm}", f"conv{norm}.norm")
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def save(name: str, content: object, legacy: bool = False, protocol: int = 2) -> None:
    torch.save(content, FOLDER / name, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)


def layouts() -> None:
    net = backbone()
    mlp, mlp2 = head("global_head", dense=False), head("dense_head", dense=True)

    # A state_dict with its remark on versions, as every module has it; storages are shared.
    query = prefixed("encoder_q.0.", net) | prefixed("encoder_q.1.mlp.", mlp) | prefixed("encoder_q.1.mlp2.", mlp2)
    keys = prefixed("encoder_k.0.", other(net)) | prefixed("encoder_k.1.mlp.", other(mlp))
    queues = {"queue": torch.zeros(PROJECTION, 8), "queue_ptr": torch.zeros(1, dtype=torch.int64)}
    state = collections.OrderedDict(query | keys | prefixed("backbone.", net) | queues)
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    meta = {"epoch": 200, "config": "model = dict()", "time": "now"}
    save("densecl-training.pth", {"meta": meta, "state_dict": state, "optimizer": optimizer.state_dict()})

    save("densecl-released.pth", {"state_dict": net, "author": "somebody"}, legacy=True)

    moco = prefixed("module.encoder_q.", net) | prefixed("module.encoder_q.fc.", mlp)
    moco |= prefixed("module.encoder_k.", other(net)) | {"module.queue": torch.zeros(PROJECTION, 8)}
    save("moco-v2.pth.tar", {"epoch": 200, "arch": "resnet18", "state_dict": moco}, legacy=True)

    mm = prefixed("backbone.", net) | prefixed("neck.mlp.", mlp) | prefixed("neck.mlp2.", mlp2)
    mm |= prefixed("encoder_k.module.0.", other(net)) | {"queue2": torch.zeros(PROJECTION, 8)}
    save("mmselfsup.pth", {"meta": meta, "state_dict": collections.OrderedDict(mm)})

    pixpro = prefixed("module.encoder.", net) | prefixed("module.encoder_k.", other(net))
    pixpro |= {"module.projector.linear1.weight": torch.zeros(2, 2)}
    save("pixpro.pth", {"opt": argparse.Namespace(lr=0.1), "model": pixpro, "epoch": 1}, legacy=True)

    classifier = {"fc.weight": torch.zeros(3, WIDTH * 8), "fc.bias": torch.zeros(3)}
    save("torchvision.pth", collections.OrderedDict(net | classifier))

    arrays = {detectron2(name): tensor.numpy() for name, tensor in net.items()}
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    for protocol in (0, 2, 4, 5):
        (FOLDER / f"detectron2-protocol-{protocol}.pkl").write_bytes(pickle.dumps(content, protocol))


def module(name: str) -> types.ModuleType:
    """An empty module of a package that is not installed."""
    for end in range(1, len(name.split(".")) + 1):
        part = ".".join(name.split(".")[:end])
        sys.modules.setdefault(part, types.ModuleType(part))
    return sys.modules[name]


def foreign(of: str, name: str, base: type = object) -> type:
    """A class that pickles under a name of a package that is not installed."""
    stand_in = type(name, (base,), {"__module__": of, "__qualname__": name})
    setattr(module(of), name, stand_in)
    return stand_in


def transformers(name: str) -> str:
    """Hugging Face's name of a tensor of its ResNet, behind `resnet.`."""
    parts = name.split(".")
    kind = "convolution" if "conv" in name or ".downsample.0." in name else "normalization"
    if len(parts) == 2:
        return f"embedder.embedder.{kind}.{parts[-1]}"
    block = f"encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
    inner = "shortcut" if parts[2] == "downsample" else f"layer.{int(parts[2][-1]) - 1}"
    return f"{block}.{inner}.{kind}.{parts[-1]}"


def training_tools() -> None:
    """What trainers leave beside the weights: heads, settings, callbacks, averaged weights."""
    net, classifier = backbone(), {"weight": torch.zeros(3, WIDTH * 8), "bias": torch.zeros(3)}
    averaged = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in net.items()}
    settings = foreign("omegaconf.dictconfig", "DictConfig", dict)(width=1)
    stage = enum.Enum("Stage", {"FIT": "fit"}, module="lightning.pytorch.trainer.states")
    module(stage.__module__).Stage = stage
    note = foreign("project.models", "Note")()
    note.text = "somebody's own class"
    monitor = {"monitor": "loss", "best_model_score": torch.tensor(0.5), "best_model_path": Path("epoch=1.ckpt")}
    head_of = {
        "projection_head.layers.0.weight": torch.zeros(4, WIDTH * 8),
        "projection_head.layers.1.running_mean": torch.zeros(4),
        "online_classifier.weight": classifier["weight"],
    }
    save("lightning.ckpt", {
        "epoch": 1,
        "global_step": 7,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": collections.OrderedDict(
            prefixed("backbone.", net) | prefixed("backbone_momentum.", other(net)) | head_of),
        "hyper_parameters": {
            "args": argparse.Namespace(lr=0.1), "folder": Path("/data"), "config": settings, "note": note,
            "optimizer": functools.partial(torch.optim.SGD, lr=0.1), "stage": stage.FIT,
            "module": torch.nn.Linear(2, 2), "device": torch.device("cpu"), "type": torch.bfloat16,
        },
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": monitor, "EarlyStopping": {"wait_count": 0}},
        "optimizer_states": [], "lr_schedulers": [], "loops": {"fit_loop": {"state_dict": {}}},
    })
    wrapped, wrapped_ema = prefixed("module.", net), prefixed("module.", averaged)
    save("ema-beside.pth.tar", {"epoch": 1, "state_dict": wrapped, "state_dict_ema": wrapped_ema}, legacy=True)
    save("ema-only.pth", {"epoch": 1, "model_ema": {"module": averaged}}, legacy=True)
    student = prefixed("module.backbone.", net) | {"module.head.mlp.0.weight": torch.zeros(2, 2)}
    teacher = prefixed("backbone.", averaged) | {"head.mlp.0.weight": torch.zeros(2, 2)}
    save("dino.pth", {"student": student, "teacher": teacher, "epoch": 1}, legacy=True)
    hugging_face = {transformers(name): tensor for name, tensor in net.items()}
    save("transformers.bin", collections.OrderedDict(
        prefixed("resnet.", hugging_face) | prefixed("classifier.1.", classifier)))


def tensors() -> dict[str, object]:
    """Tensors of every type and form, alone."""
    base = values("base", (4, 6))
    with_attribute = values("attribute", (3,))
    with_attribute.note = "kept aside"
    content = {
        "float32": base,
        "float64": base.double(),
        "float16": base.half(),
        "bfloat16": base.bfloat16(),
        "transposed": base.t(),
        "column": base[:, 1],
        "part": base[1:3, 2:5],
        "channels_last": values("nhwc", (2, 3, 4, 5)).contiguous(memory_format=torch.channels_last),
        "expanded": values("one", (1,)).expand(5),
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base.clone()),
        "attribute": with_attribute,
        "nested": [{"deep": (base[0],)}],
        "size": torch.Size([1, 2]),
        "type": torch.float32,
        "device": torch.device("cpu"),
        "numpy": numpy.float64(0.5),
    }
    for kind in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
        content[str(kind).removeprefix("torch.")] = torch.tensor([0, 1, 1], dtype=kind)
    save("tensors-zip.pth", content)
    save("tensors-protocol-4.pth", content, protocol=4)
    save("tensors-legacy.pth", content, legacy=True)
    return content


def refused() -> None:
    """Honest files that are refused."""
    ones = torch.ones(3)
    save("refused-complex.pth", {"x": ones.to(torch.complex64)})
    save("refused-sparse.pth", {"x": ones.to_sparse()})
    save("refused-float8.pth", {"x": ones.to(torch.float8_e4m3fn)})
    save("refused-quantised.pth", {"x": torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8)})
    save("refused-module.pth", torch.nn.Linear(2, 2))
    native, sys.byteorder = sys.byteorder, "big"
    try:
        save("refused-big-endian-zip.pth", {"x": ones})
        save("refused-big-endian-legacy.pth", {"x": ones}, legacy=True)
    finally:
        sys.byteorder = native
    arrays = {"big-endian": numpy.ones(3, ">f4"), "objects": numpy.array([None, 1]), "text": numpy.array(["a"])}
    for name, array in arrays.items():
        (FOLDER / f"refused-numpy-{name}.pkl").write_bytes(pickle.dumps({"model": {"x": array}}, 2))


def seeds(content: dict[str, object]) -> None:
    """Small files for the fuzzer to begin with: a few tensors of a network in each layout.

    Without checksums, so that a change of a pickle gets past the archive around it.
    """
    torch.serialization.set_crc32_options(False)
    folder = FOLDER.parent.parent / "trainer" / "checkpoints" / "fuzz" / "corpus" / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    few = {name: tensor for name, tensor in backbone().items() if name.startswith(("conv1", "bn1.w", "layer1.0.conv1"))}
    mlp2 = head("dense_head", dense=True)
    renamed = {
        "bare": few,
        "openselfsup": prefixed("encoder_q.0.", few) | prefixed("encoder_q.1.mlp2.", mlp2),
        "mm": prefixed("module.backbone.", few) | prefixed("module.neck.mlp2.", mlp2),
    }
    for name, state in renamed.items():
        for legacy in (False, True):
            path = folder / f"{name}-{'legacy' if legacy else 'zip'}"
            torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=not legacy)
    torch.save(content, folder / "tensors-zip")
    arrays = {"model": {detectron2(name): tensor.numpy() for name, tensor in few.items()}}
    for protocol in (0, 2, 4, 5):
        (folder / f"arrays-{protocol}").write_bytes(pickle.dumps(arrays, protocol))
    for name in ("tensors-legacy.pth", "refused-numpy-objects.pkl"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    header = b'{"__metadata__":{"format":"pt"},"conv1.weight":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}'
    (folder / "safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


if __name__ == "__main__":
    layouts()
    training_tools()
    content = tensors()
    refused()
    seeds(content)
