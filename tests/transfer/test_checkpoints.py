"""Full-size checkpoints of every layout, made by the real tools, against torchvision.

Needs PyTorch, torchvision, ONNX Runtime, NumPy, and the trainer: DENSECL_TRAINER, or the debug
build. ResNet-18 stands for the layouts, ResNet-50 for the network that people have.
"""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import subprocess
from pathlib import Path
from typing import Callable

import numpy
import onnxruntime
import pytest
import torch
import torchvision

ROOT = Path(__file__).resolve().parent.parent.parent
TRAINER = ROOT / os.environ.get("DENSECL_TRAINER", "target/debug/densecl-trainer")
MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])
# Largest difference of `res5`, relative to its largest value.
TOLERANCE = 1e-4

State = dict[str, torch.Tensor]


def trainer(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TRAINER, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def succeeds(*arguments: object) -> str:
    run = trainer(*arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout


def network(architecture: str, seed: int) -> torch.nn.Module:
    """Random weights, and statistics that are neither zero nor one."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, architecture)().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return model


@pytest.fixture(scope="module")
def resnet18() -> torch.nn.Module:
    return network("resnet18", 1)


@pytest.fixture(scope="module")
def resnet50() -> torch.nn.Module:
    return network("resnet50", 2)


def backbone(model: torch.nn.Module) -> State:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}


def res5(state: State, architecture: str, images: numpy.ndarray) -> numpy.ndarray:
    """torchvision's last map of uint8 images `[N, H, W, 3]`."""
    model = getattr(torchvision.models, architecture)().eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"fc.weight", "fc.bias"} and set(unexpected) <= {"fc.weight", "fc.bias"}
    body = torch.nn.Sequential(*list(model.children())[:-2])
    x = (torch.from_numpy(images).float() / 255 - MEAN) / STD
    with torch.no_grad():
        return body(x.permute(0, 3, 1, 2)).numpy()


def head(channels: int, dense: bool) -> State:
    torch.manual_seed(3)
    tail = (1, 1) if dense else ()
    return {
        "0.weight": torch.randn(channels, channels, *tail) / channels**0.5,
        "0.bias": torch.randn(channels),
        "2.weight": torch.randn(128, channels, *tail) / channels**0.5,
        "2.bias": torch.randn(128),
    }


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def detectron2_name(name: str) -> str:
    """Detectron2's own renaming, `tools/convert-torchvision-to-d2.py`."""
    if "layer" not in name:
        name = "stem." + name
    for stage in (1, 2, 3, 4):
        name = name.replace(f"layer{stage}", f"res{stage + 1}")
    for norm in (1, 2, 3):
        name = name.replace(f"bn{norm}", f"conv{norm}.norm")
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def transformers_name(name: str) -> str:
    """Hugging Face's name, behind `resnet.`; `test_hugging_faces_network` holds it against the library."""
    parts = name.split(".")
    kind = "convolution" if "conv" in name or ".downsample.0." in name else "normalization"
    if len(parts) == 2:
        return f"embedder.embedder.{kind}.{parts[-1]}"
    block = f"encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
    inner = "shortcut" if parts[2] == "downsample" else f"layer.{int(parts[2][-1]) - 1}"
    return f"{block}.{inner}.{kind}.{parts[-1]}"


# Layouts -------------------------------------------------------------------------------------


def densecl_training(net: State, other: State, channels: int) -> object:
    mlp, mlp2 = head(channels, dense=False), head(channels, dense=True)
    query = prefixed("0.", net) | prefixed("1.mlp.", mlp) | prefixed("1.mlp2.", mlp2)
    keys = prefixed("0.", other) | prefixed("1.mlp.", mlp) | prefixed("1.mlp2.", mlp2)
    state = collections.OrderedDict(prefixed("encoder_q.", query) | prefixed("encoder_k.", keys))
    state.update(prefixed("backbone.", net))  # the same storages once more
    for name in ("queue", "queue2"):
        state |= {name: torch.randn(128, 64), f"{name}_ptr": torch.zeros(1, dtype=torch.long)}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.3, momentum=0.9)
    return {"meta": {"epoch": 800}, "state_dict": state, "optimizer": optimizer.state_dict()}


def densecl_released(net: State, other: State, channels: int) -> object:
    return {"state_dict": net, "author": "DenseCL"}


def mmselfsup(net: State, other: State, channels: int) -> object:
    state = prefixed("backbone.", net) | prefixed("neck.mlp.", head(channels, dense=False))
    state |= prefixed("neck.mlp2.", head(channels, dense=True)) | prefixed("encoder_k.module.0.", other)
    return {"meta": {}, "state_dict": collections.OrderedDict(state | {"queue": torch.randn(128, 64)})}


def moco_v2(net: State, other: State, channels: int) -> object:
    state = prefixed("module.encoder_q.", net) | prefixed("module.encoder_q.fc.", head(channels, dense=False))
    state |= prefixed("module.encoder_k.", other) | {"module.queue": torch.randn(128, 64)}
    return {"epoch": 200, "arch": "resnet", "state_dict": state}


def moco_v1(net: State, other: State, channels: int) -> object:
    state = prefixed("module.encoder_q.", net) | prefixed("module.encoder_k.", other)
    return {"state_dict": state | {"module.encoder_q.fc.weight": torch.randn(128, channels)}}


def pixpro(net: State, other: State, channels: int) -> object:
    state = prefixed("module.encoder.", net) | prefixed("module.encoder_k.", other)
    return {"opt": argparse.Namespace(lr=1.0), "model": state | {"module.projector.linear1.weight": torch.ones(2)}}


def bare(net: State, other: State, channels: int) -> object:
    return net | {"fc.weight": torch.zeros(10, channels), "fc.bias": torch.zeros(10)}


def parameters(net: State, other: State, channels: int) -> object:
    """Every weight a Parameter in channels-last memory: views whose strides are not their shape's."""
    laid_out = {n: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for n, t in net.items()}
    return {n: torch.nn.Parameter(t) if t.is_floating_point() else t for n, t in laid_out.items()}


def one_storage(net: State, other: State, channels: int) -> object:
    """All weights as views of one storage."""
    floats = {name: tensor for name, tensor in net.items() if tensor.is_floating_point()}
    flat = torch.cat([tensor.flatten() for tensor in floats.values()])
    views = torch.split(flat, [tensor.numel() for tensor in floats.values()])
    return {name: view.view(floats[name].shape) for name, view in zip(floats, views)}


def hugging_face(net: State, other: State, channels: int) -> object:
    state = {"resnet." + transformers_name(name): tensor for name, tensor in net.items()}
    return state | {"classifier.1.weight": torch.zeros(10, channels), "classifier.1.bias": torch.zeros(10)}


def lightning(net: State, other: State, channels: int) -> object:
    heads = {"projection_head.layers.0.weight": torch.zeros(4, channels), "online_classifier.bias": torch.zeros(3)}
    return {
        "state_dict": prefixed("backbone.", net) | prefixed("backbone_momentum.", other) | heads,
        "hyper_parameters": {"args": argparse.Namespace(lr=1.0), "folder": Path("/data"), "module": torch.nn.Linear(2, 2)},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(3)}}}],
    }


def averaged_beside(net: State, other: State, channels: int) -> object:
    return {"state_dict": prefixed("module.", net), "state_dict_ema": prefixed("module.", other)}


def averaged_alone(net: State, other: State, channels: int) -> object:
    return {"epoch": 3, "model_ema": prefixed("module.", net)}


def other_head(net: State, other: State, channels: int) -> object:
    """MoCo's place for a head, with one of three layers and BatchNorm."""
    mlp = {"0.weight": torch.zeros(8, channels), "1.running_var": torch.ones(8), "3.weight": torch.zeros(8, 8)}
    return prefixed("module.encoder_q.", net) | prefixed("module.encoder_q.fc.", mlp)


LAYOUTS: list[tuple[Callable[[State, State, int], object], str, set[str]]] = [
    (densecl_training, "densecl", {"dense", "global"}),
    (densecl_released, "unknown", set()),
    (mmselfsup, "densecl", {"dense", "global"}),
    (moco_v2, "moco-v2", {"global"}),
    (moco_v1, "moco-v1", set()),
    (pixpro, "unknown", set()),
    (bare, "unknown", set()),
    (parameters, "unknown", set()),
    (one_storage, "unknown", set()),
    (hugging_face, "unknown", set()),
    (lightning, "unknown", set()),
    (averaged_beside, "unknown", set()),
    (averaged_alone, "unknown", set()),
    (other_head, "unknown", set()),
]


def check_export(path: Path, out: Path, expected: numpy.ndarray, images: numpy.ndarray, heads: set[str]) -> None:
    """`export` takes the file, and ONNX Runtime computes what torchvision does."""
    succeeds("export", path, "--out", out / "zoo" / "net" / "1", "--licence", "MIT")
    session = onnxruntime.InferenceSession(out / "zoo" / "net" / "1" / "model.onnx")
    outputs = {output.name for output in session.get_outputs()}
    assert outputs == {"res2", "res3", "res4", "res5"} | heads
    (found,) = session.run(["res5"], {"images": images})
    assert numpy.abs(found - expected).max() <= TOLERANCE * numpy.abs(expected).max()


@pytest.fixture(scope="module")
def images() -> numpy.ndarray:
    return numpy.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=numpy.uint8)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(("layout", "method", "heads"), LAYOUTS, ids=[layout.__name__ for layout, *_ in LAYOUTS])
def test_layout(layout, method, heads, legacy, resnet18, images, tmp_path: Path) -> None:
    net = backbone(resnet18)
    other = {name: tensor + 1 for name, tensor in net.items()}
    path = tmp_path / "file.pth"
    torch.save(layout(net, other, 512), path, _use_new_zipfile_serialization=not legacy)
    text = succeeds("inspect", path)
    assert f"method: {method}\n" in text and "resnet18, stem of 64" in text and "not taken" not in text
    check_export(path, tmp_path, res5(net, "resnet18", images), images, heads)


def test_averaged_weights_are_chosen_by_name(resnet18, images, tmp_path: Path) -> None:
    net = backbone(resnet18)
    averaged = {name: tensor * 1.01 if tensor.is_floating_point() else tensor for name, tensor in net.items()}
    torch.save({"student": net, "teacher": averaged}, tmp_path / "dino.pth")
    assert "--weight-set" in trainer("convert", tmp_path / "dino.pth", tmp_path / "out.pth").stderr
    for name, expected in (("student", net), ("teacher", averaged), ("ema", averaged)):
        succeeds("convert", tmp_path / "dino.pth", tmp_path / "out.pth", "--weight-set", name)
        state = torch.load(tmp_path / "out.pth", weights_only=True)
        assert all(torch.equal(tensor, expected[key]) for key, tensor in state.items()), name


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_hugging_faces_network(kind, images, tmp_path: Path) -> None:
    """The library's own network and files, where it is installed."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    depths, widths = ([2, 2, 2, 2], [64, 128, 256, 512]) if kind == "basic" else ([3, 4, 6, 3], [256, 512, 1024, 2048])
    config = transformers.ResNetConfig(depths=depths, hidden_sizes=widths, layer_type=kind)
    model = transformers.ResNetForImageClassification(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    model.save_pretrained(tmp_path / "hub")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    x = (torch.from_numpy(images).float() / 255 - MEAN) / STD
    with torch.no_grad():
        expected = model.resnet(x.permute(0, 3, 1, 2)).last_hidden_state.numpy()
    for number, path in enumerate((tmp_path / "hub", tmp_path / "pytorch_model.bin")):
        check_export(path, tmp_path / str(number), expected, images, set())
    config.downsample_in_bottleneck = True
    config.save_pretrained(tmp_path / "hub")
    assert "downsample_in_bottleneck" in trainer("convert", tmp_path / "hub", tmp_path / "a.pth").stderr


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_timms_network(architecture, images, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(4)
    model = timm.create_model(architecture, pretrained=False).eval()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    x = (torch.from_numpy(images).float() / 255 - MEAN) / STD
    with torch.no_grad():
        expected = model.forward_features(x.permute(0, 3, 1, 2)).numpy()
    check_export(tmp_path / "pytorch_model.bin", tmp_path, expected, images, set())


@pytest.mark.parametrize("architecture", [
    "resnet18d", "resnet50d", "resnet26", "resnet152", "seresnet50", "resnext50_32x4d", "wide_resnet50_2", "resnet50_gn",
    "resnetv2_50", "resnetblur50", "ecaresnet50d", "resnest14d", "vit_tiny_patch16_224", "convnext_atto",
    "efficientnet_b0", "vgg11", "densenet121", "regnety_002", "mobilenetv3_small_100", "swin_tiny_patch4_window7_224",
])
def test_timms_other_networks_are_refused_by_name(architecture, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model(architecture, pretrained=False).state_dict(), tmp_path / "model.bin")
    run = trainer("convert", tmp_path / "model.bin", tmp_path / "out.pth")
    assert run.returncode != 0 and "is not read" in run.stderr and len(run.stderr) < 60_000, run.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floats(dtype, resnet18, images, tmp_path: Path) -> None:
    net = {n: t.to(dtype) if t.is_floating_point() else t for n, t in backbone(resnet18).items()}
    torch.save(net, tmp_path / "file.pth")
    rounded = {n: t.float() if t.is_floating_point() else t for n, t in net.items()}
    check_export(tmp_path / "file.pth", tmp_path, res5(rounded, "resnet18", images), images, set())


@pytest.mark.parametrize("protocol", [2, 4])
def test_detectron2_pickle(protocol, resnet50, images, tmp_path: Path) -> None:
    net = backbone(resnet50)
    arrays = {detectron2_name(name): tensor.numpy() for name, tensor in net.items()}
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content, protocol))
    check_export(tmp_path / "R-50.pkl", tmp_path, res5(net, "resnet50", images), images, set())


@pytest.fixture(scope="module")
def training_file(resnet50, tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = backbone(resnet50)
    path = tmp_path_factory.mktemp("densecl") / "epoch_200.pth"
    torch.save(densecl_training(net, {name: tensor + 1 for name, tensor in net.items()}, 2048), path)
    return path


def weights_of(model: torch.nn.Module) -> State:
    return {name: t for name, t in backbone(model).items() if not name.endswith("num_batches_tracked")}


def test_training_file_is_exported(training_file, resnet50, images, tmp_path: Path) -> None:
    check_export(training_file, tmp_path, res5(backbone(resnet50), "resnet50", images), images, {"dense", "global"})


def test_converted_to_torchvision(training_file, resnet50, tmp_path: Path) -> None:
    out = tmp_path / "backbone.pth"
    succeeds("convert", training_file, out, "--to", "torchvision")
    state = torch.load(out, weights_only=True)
    assert torch.load(out, weights_only=True, mmap=True).keys() == state.keys()
    expected = weights_of(resnet50)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    missing, unexpected = torchvision.models.resnet50().load_state_dict(state, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected


def test_converted_to_mmpretrain(training_file, resnet50, tmp_path: Path) -> None:
    out = tmp_path / "mm.pth"
    succeeds("convert", training_file, out, "--to", "mmpretrain")
    state = torch.load(out, weights_only=True)["state_dict"]
    expected = prefixed("backbone.", weights_of(resnet50)) | prefixed("neck.mlp.", head(2048, dense=False))
    expected |= prefixed("neck.mlp2.", head(2048, dense=True))
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_converted_to_detectron2(training_file, resnet50, tmp_path: Path) -> None:
    """Key by key and shape by shape what Detectron2's R50 has, from its converter's renaming."""
    out = tmp_path / "densecl.pkl"
    succeeds("convert", training_file, out)
    content = pickle.loads(out.read_bytes(), encoding="latin1")
    assert content["matching_heuristics"] is True and isinstance(content["__author__"], str)
    model = content["model"]
    expected = {detectron2_name(name): tensor.numpy() for name, tensor in weights_of(resnet50).items()}
    assert model.keys() == expected.keys() and len(model) == 265
    for name, array in expected.items():
        assert model[name].dtype == numpy.float32 and model[name].shape == array.shape, name
        assert numpy.array_equal(model[name], array), name
    # Spelled out, so that an error in the renaming above would show.
    shapes = {
        "stem.conv1.weight": (64, 3, 7, 7),
        "stem.conv1.norm.running_var": (64,),
        "res2.0.shortcut.weight": (256, 64, 1, 1),
        "res2.0.shortcut.norm.weight": (256,),
        "res3.3.conv2.weight": (128, 128, 3, 3),
        "res4.5.conv3.norm.bias": (1024,),
        "res5.2.conv3.weight": (2048, 512, 1, 1),
    }
    assert {name: model[name].shape for name in shapes} == shapes


def test_round_trips_are_exact(training_file, tmp_path: Path) -> None:
    """Through every layout and back; the safetensors files of both ways are the same bytes."""
    direct, again = tmp_path / "direct.safetensors", tmp_path / "again.safetensors"
    for target, name in [("densecl", "a.safetensors"), ("mmpretrain", "a.pth")]:
        succeeds("convert", training_file, direct, "--to", "densecl")
        succeeds("convert", training_file, tmp_path / name, "--to", target)
        succeeds("convert", tmp_path / name, again, "--to", "densecl")
        assert direct.read_bytes() == again.read_bytes(), target
    for target, name in [("torchvision", "b.pth"), ("detectron2", "b.pkl")]:
        succeeds("convert", training_file, tmp_path / name, "--to", target)
        succeeds("convert", tmp_path / name, tmp_path / "bare.pth", "--to", "torchvision")
        succeeds("convert", training_file, tmp_path / "expected.pth", "--to", "torchvision")
        assert (tmp_path / "bare.pth").read_bytes() == (tmp_path / "expected.pth").read_bytes(), target


def test_incomplete_networks_are_refused(resnet18, tmp_path: Path) -> None:
    net = backbone(resnet18)
    del net["layer3.1.bn2.running_mean"]
    net["layer2.0.conv1.weight"] = torch.zeros(3, 3)
    net["layer1.0.extra.weight"] = torch.zeros(1)
    torch.save(net, tmp_path / "file.pth")
    run = trainer("export", tmp_path / "file.pth", "--out", tmp_path / "zoo" / "net" / "1", "--licence", "MIT")
    assert run.returncode != 0
    for name in ("layer3.1.bn2.running_mean", "layer2.0.conv1.weight", "layer1.0.extra.weight"):
        assert name in run.stderr
    assert not (tmp_path / "zoo").exists()
    allowed = ["--allow", "layer3.1.*", "--allow", "layer1.0.extra.*", "--allow", "layer2.0.conv1.weight"]
    succeeds("convert", tmp_path / "file.pth", tmp_path / "rest.pth", *allowed)
    assert torch.load(tmp_path / "rest.pth", weights_only=True).keys() == {
        name for name in net if "num_batches" not in name and name not in ("layer1.0.extra.weight", "layer2.0.conv1.weight")
    }


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {marker}",)

    torch.save({"state_dict": {"conv1.weight": torch.ones(1)}, "payload": Payload()}, tmp_path / "file.pth")
    for command in (["inspect"], ["convert", tmp_path / "out.pth"], ["export", "--out", tmp_path / "zoo" / "a" / "1"]):
        run = trainer(command[0], tmp_path / "file.pth", *command[1:])
        assert run.returncode != 0 and "`posix.system`" in run.stderr
    assert not marker.exists()
