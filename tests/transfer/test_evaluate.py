"""`densecl-trainer evaluate` against scikit-learn, on the same features and the same predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, jaccard_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

Trainer = Callable[..., str]

MODEL = "random:resnet18"
CLASSES = ("bright", "dark", "stripes")
VOID = 255


def picture(kind: str, rng: np.random.Generator) -> Image.Image:
    """A picture that tells its class plainly: light, dark, or striped, under noise."""
    pixels = rng.normal(0, 12, (40, 52, 3))
    pixels += {"bright": 200, "dark": 50, "stripes": 125}[kind]
    if kind == "stripes":
        pixels += np.where(np.arange(52) // 4 % 2, 70, -70)[None, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_folder(root: Path, of: Callable[[str, np.random.Generator], str]) -> Path:
    """24 training and 12 test pictures a class; `of` says which kind of picture a class shows."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(of(name, rng), rng).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every class shows its own kind of picture."""
    return write_folder(tmp_path_factory.mktemp("plain"), lambda name, _: name)


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the pictures are of any class, so that no accuracy is perfect."""
    def kind(name: str, rng: np.random.Generator) -> str:
        return name if rng.random() < 0.5 else str(rng.choice(CLASSES))

    return write_folder(tmp_path_factory.mktemp("hard"), kind)


def evaluate(trainer: Trainer, out: Path, *arguments: str | Path) -> dict:
    trainer("evaluate", *arguments, "--json", out)
    return json.loads(out.read_text())


def features_of(trainer: Trainer, data: Path, folder: Path, *arguments: str) -> tuple[dict, list[np.ndarray]]:
    """The report of one seed; features and labels of training and test images."""
    file = folder / "features.safetensors"
    report = evaluate(trainer, folder / "report.json", *arguments, "--data", data, "--side", "64", "--model", MODEL,
                      "--seeds", "3", "--features-out", file)
    tensors = load_file(file)
    return report, [tensors[f"{part}/{what}"] for part in ("train", "test") for what in ("features", "labels")]


def test_nearest_neighbours_are_scikit_learns(trainer: Trainer, hard: Path, tmp_path: Path) -> None:
    report, (x, y, unseen, truth) = features_of(trainer, hard, tmp_path, "knn", "--k", "1,5,20")
    measures = report["rows"][0]["repetitions"][0]["measures"]
    weigh = lambda distances: np.exp((1 - distances) / 0.07)
    for k, measure in zip((1, 5, 20), measures):
        judge = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weigh)
        judge.fit(x.astype(np.float64), y)
        # One picture at most may fall to another class by rounding.
        assert abs(judge.score(unseen.astype(np.float64), truth) - measure) <= 1 / len(truth) + 1e-9, k


def test_the_linear_probe_is_scikit_learns_logistic_regression(trainer: Trainer, hard: Path, tmp_path: Path) -> None:
    report, (x, y, unseen, truth) = features_of(trainer, hard, tmp_path, "linear")
    repetition = report["rows"][0]["repetitions"][0]
    scale = StandardScaler().fit(x.astype(np.float64))
    strength = 1 / (repetition["details"]["weight_decay"] * len(x))
    judge = LogisticRegression(C=strength, max_iter=10_000, tol=1e-8).fit(scale.transform(x.astype(np.float64)), y)
    predicted = judge.predict(scale.transform(unseen.astype(np.float64)))
    assert abs(float(np.mean(predicted == truth)) - repetition["measures"][0]) <= 1 / len(truth) + 1e-9
    counts = confusion_matrix(truth, predicted)
    assert abs(np.mean(counts.diagonal() / counts.sum(1)) - repetition["measures"][1]) <= 0.03 + 1e-9


def test_plain_classes_are_told_apart_and_meaningless_ones_are_not(
    trainer: Trainer, plain: Path, tmp_path: Path
) -> None:
    meaningless = write_folder(tmp_path / "meaningless", lambda _, rng: str(rng.choice(CLASSES)))
    for task in ("knn", "linear"):
        arguments = (task, "--side", "64", "--model", MODEL, "--seeds", "0,1")
        separable = evaluate(trainer, tmp_path / "a.json", *arguments, "--data", plain)["rows"][0]["summary"]
        chance = evaluate(trainer, tmp_path / "b.json", *arguments, "--data", meaningless)["rows"][0]["summary"]
        assert next(iter(separable.values()))["mean"] >= 0.98, task
        assert 0.1 < next(iter(chance.values()))["mean"] < 0.6, task


def test_the_same_command_gives_the_same_numbers_and_another_seed_others(
    trainer: Trainer, hard: Path, tmp_path: Path
) -> None:
    # Without val/ each seed draws what is tested on.
    arguments = ("linear", "--side", "64", "--model", MODEL, "--data", hard / "train", "--seeds")
    run = lambda seeds: evaluate(trainer, tmp_path / "report.json", *arguments, seeds)["rows"][0]
    first = run("0,1,2")
    assert run("0,1,2") == first
    values = [repetition["measures"][0] for repetition in first["repetitions"]]
    assert len(set(values)) > 1
    spread = first["summary"]["top-1 %"]
    assert spread["mean"] == pytest.approx(np.mean(values)) and spread["deviation"] == pytest.approx(np.std(values, ddof=1))


def write_halves(root: Path) -> Path:
    """Pictures of two colours, one a class, in VOC's layout; the border between them does not count."""
    rng = np.random.default_rng(1)
    colours = np.array([[200, 60, 60], [40, 90, 210]], np.uint8)
    for split, count in (("train", 8), ("val", 4)):
        names = [f"{split}{i}" for i in range(count)]
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
        for name in names:
            label = np.zeros((96, 128), np.uint8)
            border = rng.integers(40, 88)
            label[:, border:] = 1
            Image.fromarray(colours[label]).save(root / f"JPEGImages/{name}.jpg", quality=95)
            label[:, border - 2 : border + 2] = VOID
            Image.fromarray(label).save(root / f"SegmentationClass/{name}.png")
    (root / "classes.txt").write_text("red\nblue\n")
    return root


def write_figures(trainer: Trainer, root: Path) -> Path:
    trainer("synth", "--kind", "segmentation", "--count", "8", "--val-count", "5", "--size", "100x75", "--out", root)
    return root


@pytest.mark.parametrize(("task", "steps"), [("segmentation-linear", "12"), ("segmentation-fcn", "60")])
def test_the_mean_iou_is_scikit_learns(trainer: Trainer, tmp_path: Path, task: str, steps: str) -> None:
    data, predictions = tmp_path / "data", tmp_path / "predictions"
    # A training so short predicts some classes in some places, which is all that is asked of it; the
    # figures of `synth` are so small that an FCN would first predict background alone.
    data = write_figures(trainer, data) if task == "segmentation-linear" else write_halves(data)
    row = evaluate(trainer, tmp_path / "report.json", task, "--data", data, "--model", MODEL, "--seeds", "1",
                   "--steps", steps, "--batch", "4", "--crop", "64", "--learning-rate", "0.01", "--output-stride", "16",
                   "--predictions-out", predictions)["rows"][0]["repetitions"][0]
    names = (data / "ImageSets/Segmentation/val.txt").read_text().split()
    assert sorted(path.stem for path in predictions.iterdir()) == sorted(names)
    labels = lambda folder: np.concatenate([np.array(Image.open(folder / f"{name}.png")).ravel() for name in names])
    truth, predicted = labels(data / "SegmentationClass"), labels(predictions)
    counted = truth != VOID
    truth, predicted = truth[counted], predicted[counted]
    seen = np.union1d(truth, predicted)
    assert len(np.unique(predicted)) > 1, "the prediction is the same everywhere"
    iou = jaccard_score(truth, predicted, labels=seen, average=None)
    assert row["measures"][0] == pytest.approx(iou.mean(), abs=1e-9)
    assert row["measures"][1] == pytest.approx(np.mean(truth == predicted), abs=1e-9)
    classes = (data / "classes.txt").read_text().split()
    for number, value in zip(seen, iou):
        assert row["details"]["iou"][classes[number]] == pytest.approx(value, abs=1e-9)


def test_one_colour_a_class_is_learned_to_the_last_cell(trainer: Trainer, tmp_path: Path) -> None:
    """A linear head on random features tells two colours apart nearly everywhere."""
    data = write_halves(tmp_path / "data")
    row = evaluate(trainer, tmp_path / "report.json", "segmentation-linear", "--data", data, "--model", MODEL,
                   "--seeds", "0", "--steps", "40", "--batch", "4", "--crop", "96", "--learning-rate", "0.1",
                   "--layer", "res3", "--output-stride", "8")["rows"][0]
    assert row["summary"]["mIoU %"]["mean"] > 0.9
