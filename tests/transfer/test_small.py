"""A small setting of everything: pre-train, convert, fine-tune, judge, one table by one command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from densecl_transfer import detection, segmentation
from densecl_transfer.protocol import Data, Model, Protocol, Training
from densecl_transfer.training import seed_everything

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def run(trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 of the standard width after a few steps."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    trainer("pretrain", "--config", HERE.parent.parent / "trainer/configs/tiny.toml", "--out", folder, "--device", "cpu",
            "--set", "network.stem_width=64")
    return folder


def small(name: str, folder: Path) -> Path:
    """The protocol of that name with a few iterations on a few pictures."""
    text = (HERE / "protocols" / f"{name}.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("iterations", "synth", "warmup"))]
    kind = name.removeprefix("synth-")
    lines.insert(lines.index("[training]") + 1, "iterations = 6")
    lines.insert(lines.index("[data]") + 1,
                 f'synth = {{ kind = "{kind}", count = 8, val_count = 4, size = "128x96", seed = 5 }}')
    path = folder / f"small-{kind}.toml"
    path.write_text("\n".join(lines))
    return path


def compare(*arguments: str | Path, trainer_binary: Path) -> str:
    command = [sys.executable, HERE / "compare.py", "--trainer", trainer_binary, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_one_command_makes_one_table(run: Path, trainer_binary: Path, tmp_path: Path) -> None:
    protocols = [argument for name in ("synth-detection", "synth-segmentation")
                 for argument in ("--protocol", small(name, tmp_path))]
    arguments = [*protocols, "--init", "random", "--init", f"densecl={run}", "--seeds", "2", "--out", tmp_path / "out"]
    text = compare(*arguments, trainer_binary=trainer_binary)
    rows = [line.split("|")[1].strip() for line in text.splitlines()[2:]]
    assert rows == ["random", "densecl"]
    assert "box AP50" in text and "mask AP" in text and "mIoU" in text and text.count("±") == 2 * 8
    records = json.loads((tmp_path / "out/results.json").read_text())
    assert len(records) == 8
    weights = {record["initialisation"]: record["settings"]["weights"] for record in records}
    assert weights["random"] == "random" != weights["densecl"]

    # A second time nothing is trained, and the table is the same.
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/results").iterdir()}
    began = time.monotonic()
    assert compare(*arguments, trainer_binary=trainer_binary) == text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/results").iterdir()} == kept
    assert time.monotonic() - began < 60


def test_the_same_seed_is_the_same_result(run: Path, trainer, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    trainer("convert", run, weights, "--to", "torchvision")
    trainer("synth", "--kind", "segmentation", "--count", "8", "--val-count", "4", "--size", "128x96", "--out",
            tmp_path / "VOC2012")
    protocol = Protocol("small", "segmentation", Data("voc", ("VOC2012/train",), ("VOC2012/val",), classes=11),
                        Model("resnet18", crop_px=96), Training(iterations=4, batch=2, learning_rate=0.01))
    def result(weights: Path | None, seed: int) -> dict:
        torch.set_num_threads(1)
        seed_everything(seed)
        return segmentation.run(protocol, tmp_path, weights, seed, torch.device("cpu"), "small")
    first = result(weights, 1)
    assert first == result(weights, 1)
    assert first != result(weights, 2) and first != result(None, 1)


def test_resnet50_gets_into_every_network(trainer, tmp_path: Path) -> None:
    """The weights of a converted ResNet-50 stand in Faster R-CNN, Mask R-CNN and FCN, and train."""
    import torchvision
    torch.manual_seed(4)
    original = torchvision.models.resnet50()
    torch.save(original.state_dict(), tmp_path / "original.pth")
    weights = tmp_path / "converted.pth"
    trainer("convert", tmp_path / "original.pth", weights, "--to", "torchvision")
    first = original.conv1.weight
    image = torch.rand(3, 96, 128)
    target = {"boxes": torch.tensor([[10.0, 12.0, 60.0, 70.0]]), "labels": torch.tensor([1]),
              "masks": torch.ones(1, 96, 128, dtype=torch.uint8)}
    for masks in (False, True):
        model = detection.build(Model("resnet50", masks=masks, shorter_side_px=(96,), longer_side_px=128), weights, 3)
        assert torch.equal(model.backbone.body.conv1.weight, first)
        loss = detection.loss_of(torch.device("cpu"))(model.train(), [(image, target)] * 2)
        loss.backward()
        assert torch.isfinite(loss) and model.backbone.body.conv1.weight.grad.abs().sum() > 0
    protocol = Protocol("fcn", "segmentation", Data("voc", (), (), classes=5), Model("resnet50"),
                        Training(1, 2, 0.01))
    model = segmentation.build(protocol, weights)
    assert torch.equal(model.backbone.conv1.weight, first)
    assert model(image[None].repeat(2, 1, 1, 1))["out"].shape == (2, 5, 96, 128)
