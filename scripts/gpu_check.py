"""The checks of scripts/gpu_check.sh, which says what they need.

Each part runs in its own processes. One that fails is reported and does not end the others; one that no longer fits into
--minutes is left out and said so.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import pathlib
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from dataclasses import dataclass, field
from typing import Callable, Iterator

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
ZOO = ROOT / "models" / "zoo"
PICTURE = ROOT / "server" / "src" / "http" / "docs" / "source.jpg"
# Least cosine of a descriptor of the GPU with that of the CPU. Both sum in float32 or more, in other orders.
LEAST_COSINE = {"float32": 0.9999, "float16": 0.999}


@dataclass
class Report:
    """The measurements, as a table and as JSON."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    results: dict[str, object] = field(default_factory=dict)
    has_failed: bool = False

    def add(self, part: str, what: str, value: str) -> None:
        self.rows.append((part, what, value))
        print(f"{part}: {what}: {value}", flush=True)

    def table(self) -> str:
        return "\n".join(["| part | | |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in self.rows)])


@dataclass(frozen=True)
class Options:
    folder: pathlib.Path
    device: str
    quick: bool
    out: pathlib.Path

    def program(self, name: str) -> pathlib.Path:
        return self.folder / "bin" / name

    def environment(self) -> dict[str, str]:
        runtime = "onnxruntime-cuda" if self.device == "cuda" else "onnxruntime"
        library = self.folder / runtime / "libonnxruntime.so"
        if not library.exists():
            library = ROOT / ".runtime" / runtime / "libonnxruntime.so"
        return {**os.environ, "DENSECL_ONNXRUNTIME": str(library)}


def run(command: list[object], environment: dict[str, str]) -> None:
    words = [str(word) for word in command]
    ended = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode != 0:
        raise RuntimeError(f"`{' '.join(words)}` ended with {ended.returncode}:\n{ended.stdout[-3000:]}")


def server_ladder(o: Options, report: Report) -> None:
    """How much of the bare engine's speed arrives over HTTP."""
    model, sides = ("resnet18", (96,)) if o.quick else ("resnet50", (224, 512))
    precisions = ("float32", "float16") if o.device == "cuda" else ("float32",)
    for side in sides:
        for precision in precisions:
            file = o.out / f"ladder-{model}-{side}-{precision}.json"
            seconds = 0.5 if o.quick else 2
            run([o.program("ladder"), "--model", model, "--side", side, "--rounds", 2, "--seconds", seconds,
                 "--open-seconds", 0, "--json", file, "--", "--device", o.device, "--precision", precision,
                 "--cache-bytes", 0], o.environment())
            rungs = {rung["rung"]: rung["median_images_per_second"] for rung in json.loads(file.read_text())["rungs"]}
            engine = rungs["(a) engine"]
            http = max(speed for name, speed in rungs.items() if name.startswith("(d)"))
            report.add("server", f"{model}, {side} px, {precision}: (a) engine", f"{engine:.1f} images/s")
            report.add("server", f"{model}, {side} px, {precision}: (d) over (a)", f"{http / engine:.3f}")
            report.results[file.stem] = rungs


class Server:
    """A server that is ready, until the end of a `with` block."""

    def __init__(self, o: Options, device: str, precision: str):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.log = tempfile.TemporaryFile()
        command = [o.program("densecl-server"), "serve", "--listen", self.url.removeprefix("http://"), "--models", ZOO,
                   "--device", device, "--precision", precision, "--cache-bytes", 0]
        self.process = subprocess.Popen([str(word) for word in command], env=o.environment(), stdout=self.log,
                                        stderr=self.log)

    def __enter__(self) -> Server:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url + "/readyz").close()
                return self
            except OSError:
                time.sleep(0.05)
        self.log.seek(0)
        raise RuntimeError(f"the server is not ready:\n{self.log.read().decode(errors='replace')[-3000:]}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def models(self) -> dict:
        return json.load(urllib.request.urlopen(self.url + "/models"))

    def features(self, layer: str, side: int) -> torch.Tensor:
        """`[C, N]` descriptors of the picture, as the model computes them."""
        query = f"/features?layer={layer}&side={side}&normalize=none&format=npy"
        request = urllib.request.Request(self.url + query, PICTURE.read_bytes(), {"Content-Type": "image/jpeg"})
        file = urllib.request.urlopen(request).read()
        (length,) = struct.unpack("<H", file[8:10])
        shape = ast.literal_eval(file[10 : 10 + length].decode().strip())["shape"]
        values = torch.frombuffer(bytearray(file[10 + length :]), dtype=torch.float32).reshape(shape)
        return values.flatten(1) if values.ndim == 3 else values.unsqueeze(1)


def parity(o: Options, report: Report) -> None:
    """The agreement of every layer on the GPU with the CPU."""
    side = 96 if o.quick else 512
    with Server(o, "cpu", "float32") as cpu:
        manifest = cpu.models()["models"][0]["manifest"]
        layers = [layer["name"] for layer in manifest["layers"]] + (["global"] if manifest.get("global") else [])
        expected = {layer: cpu.features(layer, side) for layer in layers}
    for precision in ("float32", "float16"):
        with Server(o, o.device, precision) as server:
            provider = server.models()["models"][0]["provider"]
            cosines = {
                layer: torch.cosine_similarity(server.features(layer, side).double(), expected[layer].double(), dim=0)
                for layer in layers
            }
        for layer, cosine in cosines.items():
            report.add("parity", f"{provider} in {precision}, {layer}: least cosine with the CPU", f"{cosine.min():.7f}")
        report.results[f"parity-{precision}"] = {layer: cosine.min().item() for layer, cosine in cosines.items()}
        worst = min(cosine.min().item() for cosine in cosines.values())
        if worst < LEAST_COSINE[precision]:
            raise RuntimeError(f"a descriptor of {provider} in {precision} has a cosine of {worst} with that of the CPU")


def training_step(o: Options, report: Report) -> None:
    """The step in turns with eager PyTorch, and DenseCL with MoCo-v2."""
    file = o.out / "training.json"
    size = ["--arch", "resnet50", "--batch", 256, "--view", 224, "--canvas", 256, "--bn-splits", 8, "--queue", 65536,
            "--workers", 12, "--rounds", 5, "--steps", 4, "--warmup", 5, "--loader-steps", 8]
    if o.quick:
        size = ["--batch", 8, "--view", 32, "--canvas", 40, "--queue", 64, "--rounds", 2, "--steps", 1, "--warmup", 1,
                "--loader-steps", 2]
    environment = o.environment()
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(o.folder / "python"), os.environ.get("PYTHONPATH")]))
    run([sys.executable, ROOT / "trainer" / "bench" / "compare.py", "--trainer", o.program("densecl-trainer"),
         "--python", sys.executable, "--device", o.device, "--precision", "bf16", "--channels-last", "--json", file,
         *size], environment)
    results = json.loads(file.read_text())
    for name, step in results["steps"].items():
        report.add("training", f"{name}", f"{step['seconds']['median'] * 1e3:.1f} ms/step")
    for name, ratio in results["ratios"].items():
        report.add("training", f"time of {name}", f"{ratio['median']:.3f}")
    report.add("training", "loader alone", f"{results['loader']['pairs_per_second']:.0f} images/s")
    report.results["training"] = {key: results[key] for key in ("ratios", "loader")}


def data_wait(o: Options, report: Report) -> None:
    """The share of the time that pre-training waits for images."""
    settings = ["data.source=synthetic", "data.workers=12", "data.images_per_epoch=20000", "schedule.epochs=1",
                "schedule.report_steps=10"]
    settings += ["network.architecture=resnet50", "network.precision=bf16", "network.memory_format=channels-last",
                 "data.view_px=224", "data.canvas_px=256", "optimizer.batch=256", "contrast.queue_length=16384"]
    if o.quick:
        settings = ["data.images_per_epoch=64", "schedule.report_steps=1", "schedule.epochs=1", "optimizer.batch=8",
                    "data.view_px=32", "data.canvas_px=40", "contrast.queue_length=32"]
    with tempfile.TemporaryDirectory() as folder:
        run([o.program("densecl-trainer"), "pretrain", "--config", ROOT / "trainer" / "bench" / "config.toml", "--out",
             f"{folder}/run", "--device", o.device, "--set", *settings], o.environment())
        lines = [json.loads(line) for line in pathlib.Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    # The first line has the start of the loader in it.
    waits, speeds = ([line[key] for line in lines[1:]] for key in ("data_wait", "pairs_per_second"))
    report.add("data", "pre-training", f"{statistics.median(speeds):.0f} pairs/s")
    report.add("data", "wait for images", f"{statistics.median(waits):.1f} % of the time")
    report.results["data"] = {"pairs_per_second": speeds, "data_wait_percent": waits}


# Each part with the minutes that it takes at most on one H200.
PARTS: list[tuple[str, Callable[[Options, Report], None], float]] = [
    ("parity", parity, 1.0),
    ("training", training_step, 3.0),
    ("server", server_ladder, 3.0),
    ("data", data_wait, 2.0),
]


def selected(names: list[str]) -> Iterator[tuple[str, Callable[[Options, Report], None], float]]:
    return (part for part in PARTS if not names or part[0] in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="what `collect` made")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks and few steps, to try the checks")
    parser.add_argument("--minutes", type=float, default=9.5, help="parts that would end later are left out")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/gpu_check/out"))
    names = [name for name, _, _ in PARTS]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"those to run, of {', '.join(names)}; all if none is named")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(names):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here; `--device cpu --quick` tries the checks themselves")
    arguments.out.mkdir(parents=True, exist_ok=True)
    o = Options(arguments.folder, arguments.device, arguments.quick, arguments.out.resolve())
    report, begun = Report(), time.monotonic()
    device = torch.cuda.get_device_name() if o.device == "cuda" else "CPU"
    report.results |= {"device": device, "torch": torch.__version__, "quick": o.quick}
    report.add("machine", device, f"PyTorch {torch.__version__}, {os.cpu_count()} cores")
    for name, part, minutes in selected(arguments.parts):
        spent = (time.monotonic() - begun) / 60
        if not o.quick and spent + minutes > arguments.minutes:
            report.add(name, "left out", f"{spent:.1f} of {arguments.minutes} minutes are spent")
            continue
        try:
            part(o, report)
        except Exception as error:  # noqa: BLE001 - one part's failure is no reason to lose the others
            report.has_failed = True
            report.add(name, "failed", next(iter(str(error).splitlines()), type(error).__name__))
            traceback.print_exc()
        (o.out / "results.json").write_text(json.dumps(report.results, indent=1) + "\n")
    print(f"\n{report.table()}\n\n{(time.monotonic() - begun) / 60:.1f} minutes")
    sys.exit(1 if report.has_failed else 0)


if __name__ == "__main__":
    main()
