"""`densecl-server evaluate` on small data sets whose truth is known, against arithmetic done here.

Features come from the shipped model; what is asked of `densecl-server correspondence` on the same files is scored with
NumPy and has to give the numbers that `evaluate` reports.
"""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ZOO

SIDE = 160
WIDTH, HEIGHT = 160, 128
LAYER = "res3"
SHIFT = (16, 8)


def texture(left: int, top: int) -> np.ndarray:
    """The window of an endless picture that starts at (left, top): smooth noise of two sizes."""
    random = np.random.default_rng(7)
    whole = np.zeros((320, 320, 3))
    for knots, weight in [(20, 0.6), (64, 0.4)]:
        noise = random.integers(0, 256, (knots, knots, 3), np.uint8)
        whole += weight * np.asarray(Image.fromarray(noise).resize((320, 320), Image.Resampling.BICUBIC), float)
    return whole[top : top + HEIGHT, left : left + WIDTH].round().clip(0, 255).astype(np.uint8)


def save(picture: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def write_sequence(folder: Path, name: str, second: np.ndarray, homography: str) -> Path:
    save(texture(0, 0), folder / name / "1.png")
    save(second, folder / name / "2.png")
    (folder / name / "H_1_2").write_text(homography)
    return folder / name


def run(binary: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    command = [binary, *map(str, arguments), "--models", ZOO, "--device", "cpu", "--threads", "1"]
    return subprocess.run(command, capture_output=True, timeout=300, check=False)


def evaluate(binary: Path, data: Path, *flags: str | Path) -> dict:
    result = run(binary, "evaluate", "--data", data, "--side", SIDE, "--layer", LAYER, "--format", "json", *flags)
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stdout)


def refusal(binary: Path, data: Path, *flags: str) -> str:
    result = run(binary, "evaluate", "--data", data, *flags)
    assert result.returncode == 1 and not result.stdout
    return result.stderr.decode()


def numbers(report: dict, row: int = 0, group: str = "all") -> dict[str, float]:
    found = next(entry for entry in report["rows"][row]["groups"] if entry["name"] == group)
    return {metric["id"]: metric["mean"] for metric in found["metrics"]}


def correspondence(binary: Path, source: Path, target: Path, out: Path, form: str, *flags: str) -> bytes:
    settings = ["-s", f"side={SIDE}", "-s", f"layer={LAYER}"]
    result = run(binary, "correspondence", source, target, *settings, "--format", form, "--out", out, *flags)
    assert result.returncode == 0, result.stderr.decode()
    return out.read_bytes()


def test_mean_matching_accuracy_is_that_of_the_served_matches(binary: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs"
    moved = f"1 0 -{SHIFT[0]} 0 1 -{SHIFT[1]} 0 0 1"
    sequence = write_sequence(data, "v_moved", texture(*SHIFT), moved)
    # The same pictures with a truth that is four pixels off: nothing is within three, nearly everything within five.
    write_sequence(data, "i_off", texture(0, 0), "1 0 4 0 1 0 0 0 1")
    report = evaluate(binary, data)
    assert (report["schema_version"], report["layout"], report["pairs"], report["threads"]) == (1, "hpatches", 2, 1)
    matches = np.load(
        io.BytesIO(
            correspondence(binary, sequence / "1.png", sequence / "2.png", tmp_path / "m.npy", "npy", "-s", "mutual=true")
        )
    )
    errors = np.hypot(matches[:, 2] - (matches[:, 0] - SHIFT[0]), matches[:, 3] - (matches[:, 1] - SHIFT[1]))
    viewpoint = numbers(report, group="viewpoint")
    assert viewpoint["matches"] == len(matches) > 50
    for threshold in [1, 3, 5, 10]:
        assert viewpoint[f"mma_{threshold}px"] == pytest.approx(np.mean(errors < threshold), abs=0.011)
    off = numbers(report, group="illumination")
    assert (off["mma_3px"], off["homography_3px"], off["homography_5px"]) == (0.0, 0.0, 1.0)
    assert off["mma_5px"] > 0.99
    # The mean over two pairs and its standard error.
    every = {metric["id"]: metric for metric in report["rows"][0]["groups"][0]["metrics"]}
    both = np.array([viewpoint["mma_5px"], off["mma_5px"]])
    assert every["mma_5px"]["mean"] == pytest.approx(both.mean())
    assert every["mma_5px"]["standard_error"] == pytest.approx(both.std(ddof=1) / math.sqrt(2))


def outline(mask: np.ndarray) -> np.ndarray:
    """The outline of a mask as DAVIS' evaluation defines it."""
    right, below, across = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1], below[:-1], across[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ across)
    edge[-1], edge[:, -1], edge[-1, -1] = (mask ^ right)[-1], (mask ^ below)[:, -1], False
    return edge


def near(edge: np.ndarray, radius: int) -> np.ndarray:
    """Every pixel within `radius` of an edge."""
    ys, xs = np.nonzero(edge)
    y, x = np.mgrid[: edge.shape[0], : edge.shape[1]]
    result = np.zeros_like(edge)
    for edge_y, edge_x in zip(ys, xs):
        result |= (y - edge_y) ** 2 + (x - edge_x) ** 2 <= radius**2
    return result


def boundary_f(found: np.ndarray, truth: np.ndarray) -> float:
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    found_edge, true_edge = outline(found), outline(truth)
    if not found_edge.any() or not true_edge.any():
        return float(not found_edge.any() and not true_edge.any())
    precision = near(true_edge, radius)[found_edge].mean()
    recall = near(found_edge, radius)[true_edge].mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def write_scene(folder: Path) -> Path:
    scene = folder / "0000"
    for frame, (left, top) in enumerate([(0, 0), SHIFT]):
        save(texture(left, top), scene / "frames" / f"{frame:04}.png")
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        labels[(x + left - 60) ** 2 + (y + top - 60) ** 2 < 30**2] = 1
        labels[(abs(x + left - 120) < 20) & (abs(y + top - 80) < 25)] = 2
        save(labels, scene / "masks" / f"{frame:04}.png")
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    positions = np.stack([x - SHIFT[0], y - SHIFT[1]], axis=2)
    for kind in ["positions", "visible"]:
        (scene / kind).mkdir()
    np.save(scene / "positions" / "0001.npy", positions)
    np.save(scene / "visible" / "0001.npy", ((positions >= 0).all(axis=2)).astype(np.uint8))
    return scene


def test_carried_masks_are_scored_as_davis_does(binary: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scenes")
    report = evaluate(binary, tmp_path / "scenes")
    assert report["layout"] == "scenes"
    frames = [scene / "frames" / f"{frame:04}.png" for frame in range(2)]
    mask = scene / "masks" / "0000.png"
    correspondence(binary, *frames, tmp_path / "carried.png", "png", "--mask", mask)
    found = np.asarray(Image.open(tmp_path / "carried.png"))
    truth = np.asarray(Image.open(scene / "masks" / "0001.png"))
    pairs = [(found == label, truth == label) for label in [1, 2]]
    region = np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])
    boundary = np.mean([boundary_f(a, b) for a, b in pairs])
    measured = numbers(report)
    assert measured["j_served"] == pytest.approx(region) and region > 0.5
    assert measured["f_served"] == pytest.approx(boundary)
    assert measured["jf_served"] == pytest.approx((region + boundary) / 2)
    assert 0.5 < measured["j_davis"] < 1.0
    # Points that left the frame have no counterpart; most of the others are found.
    assert measured["occlusion_share"] == pytest.approx(1 - (WIDTH - 16) * (HEIGHT - 8) / (WIDTH * HEIGHT), abs=0.05)
    assert measured["pck_10px"] > 0.8 and measured["occlusion_auc"] > 0.6


def write_spair(folder: Path, annotations: dict[str, list[tuple[float, float]]]) -> None:
    """Pairs of a picture with itself, where the truth is put so far from where a point is found."""
    for category, offsets in annotations.items():
        for name in ["a", "b"]:
            save(texture(0, 0), folder / "JPEGImages" / category / f"{name}.jpg")
        source = [[30 + 25 * index, 40 + 10 * index] for index in range(len(offsets))]
        annotation = {
            "src_imname": "a.jpg",
            "trg_imname": "a.jpg",
            "category": category,
            "trg_bndbox": [10, 10, 110, 60],
            "src_kps": source,
            "trg_kps": [[x + dx, y + dy] for (x, y), (dx, dy) in zip(source, offsets)],
        }
        path = folder / "PairAnnotation" / "test" / f"000001-a-b:{category}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(annotation))


def test_keypoints_of_spair_are_right_by_the_box(binary: Path, tmp_path: Path) -> None:
    # A tenth of the box's longer side is 10 pixels: 1 of 2 and 3 of 3 are right.
    write_spair(tmp_path, {"cat": [(0, 0), (11, 0)], "dog": [(0, 9), (0, 0), (6, 6)]})
    report = evaluate(binary, tmp_path)
    assert report["layout"] == "spair"
    assert numbers(report)["pck_image_0.1"] == pytest.approx(0.75)
    assert numbers(report)["pck_point_0.1"] == pytest.approx(4 / 5)
    assert numbers(report, group="cat")["pck_point_0.1"] == pytest.approx(0.5)
    assert numbers(report, group="dog")["pck_point_0.05"] == pytest.approx(1 / 3)
    assert numbers(report, group="mean of the categories")["pck_point_0.1"] == pytest.approx(0.75)


def test_baselines_and_the_page_stand_beside_the_model(binary: Path, tmp_path: Path) -> None:
    write_sequence(tmp_path / "pairs", "v_moved", texture(*SHIFT), f"1 0 -{SHIFT[0]} 0 1 -{SHIFT[1]} 0 0 1")
    out = tmp_path / "report"
    flags = ["--baseline", "random,rgb", "--baseline", "sift", "--seeds", "2", "--python", sys.executable, "--out", out]
    report = evaluate(binary, tmp_path / "pairs", *flags)
    assert [row["kind"] for row in report["rows"]] == ["model", "random", "rgb", "sift"]
    assert report["rows"][1]["seeds"] == 2
    deviations = [metric["seed_deviation"] for metric in report["rows"][1]["groups"][0]["metrics"]]
    assert any(deviation > 0 for deviation in deviations)
    assert numbers(report)["pck_10px"] > 0.5
    assert json.loads((out / "report.json").read_text())["rows"][0]["groups"] == report["rows"][0]["groups"]
    page = (out / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 2 and "{{" not in page
    assert "http://" not in page and "https://" not in page
    sift = report["rows"][3]
    try:
        import cv2  # noqa: F401
    except ImportError:
        assert "no OpenCV" in sift["absent"] and sift["groups"] == []
    else:
        assert numbers(report, row=3)["mma_3px"] > 0.5


def test_every_combination_of_query_time_settings_is_a_row(binary: Path, tmp_path: Path) -> None:
    # Half a cell of 8 pixels in both directions: the truth lies between the centres.
    write_sequence(tmp_path / "pairs", "v_moved", texture(12, 4), "1 0 -12 0 1 -4 0 0 1")
    report = evaluate(binary, tmp_path / "pairs", "--flip=off,on", "--refine", "none,softargmax", "--refine-window", "3,5")
    names = [row["name"].removeprefix(f"{report['rows'][0]['name'].split()[0]} {LAYER} at {SIDE} px") for row in report["rows"]]
    assert names == [", no refinement", "", ", window 5", ", flip, no refinement", ", flip", ", flip, window 5"]
    assert all(row["cost"]["pair_ms"] > 0 for row in report["rows"])
    assert numbers(report, row=0)["mma_3px"] < 0.1 < 0.5 < numbers(report, row=1)["mma_3px"]


def test_what_is_missing_is_named(binary: Path, tmp_path: Path) -> None:
    assert "none of the layouts" in refusal(binary, tmp_path)
    assert "could not be read" in refusal(binary, tmp_path / "gone")
    write_spair(tmp_path / "spair", {"cat": [(0, 0)]})
    (tmp_path / "spair" / "JPEGImages" / "cat" / "a.jpg").unlink()
    assert "cat/a.jpg is missing: a picture that" in refusal(binary, tmp_path / "spair")
    assert "PairAnnotation/val is missing" in refusal(binary, tmp_path / "spair", "--split", "val")
    scene = write_scene(tmp_path / "scenes")
    np.save(scene / "visible" / "0001.npy", np.zeros((4, 5), np.uint8))
    assert "visible/0001.npy is of 4 x 5" in refusal(binary, tmp_path / "scenes")
    (scene / "positions" / "0001.npy").unlink()
    assert "positions/0001.npy is missing: where the points" in refusal(binary, tmp_path / "scenes")
    write_sequence(tmp_path / "pairs", "v_one", texture(0, 0), "1 0 0 0 1 0 0 0")
    assert "H_1_2 is not a homography: a homography has 9 numbers" in refusal(binary, tmp_path / "pairs")
