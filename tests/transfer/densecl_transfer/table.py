"""Runs of one protocol from several initialisations, and the table that compares them."""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from . import detection, segmentation
from .initialisation import Initialisation, fingerprint
from .protocol import Protocol
from .training import seed_everything

TASKS = {"detection": detection.run, "segmentation": segmentation.run}


@dataclass(frozen=True)
class Run:
    """One protocol from one initialisation with one seed."""

    protocol: Protocol
    folder: Path
    initialisation: str
    weights: Path | None
    seed: int
    device: str
    results: Path

    @property
    def label(self) -> str:
        return f"{self.protocol.name} {self.initialisation} seed {self.seed}"

    def settings(self) -> dict[str, Any]:
        """What a kept result has to agree with."""
        return {"protocol": self.protocol.document(), "weights": fingerprint(self.weights), "seed": self.seed,
                "data": self.folder.name, "torch": torch.__version__}


def execute(run: Run) -> dict[str, Any]:
    """The run's record, from the results' folder if it has been there with the same settings."""
    settings = json.loads(json.dumps(run.settings()))
    path = run.results / f"{run.protocol.name}-{run.initialisation}-seed{run.seed}.json"
    if path.is_file():
        record = json.loads(path.read_text())
        if record["settings"] == settings:
            return record
    if run.device == "cpu":
        torch.set_num_threads(1)
    seed_everything(run.seed)
    began = time.monotonic()
    found = TASKS[run.protocol.task](run.protocol, run.folder, run.weights, run.seed, torch.device(run.device),
                                     run.label)
    record = {"protocol": run.protocol.name, "initialisation": run.initialisation, "seed": run.seed,
              "scores": found, "seconds": round(time.monotonic() - began, 1), "settings": settings}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2))
    partial.rename(path)
    return record


def prepare_data(protocol: Protocol, given: Path | None, trainer: Path, out: Path) -> Path:
    """The folder that was given, or the synthetic set that the protocol describes, made once."""
    if given is not None:
        return given
    synth = protocol.data.synth
    if synth is None:
        raise ValueError(f"{protocol.name} needs a folder of data: --data {protocol.name}=FOLDER")
    arguments = ["--kind", synth.kind, "--count", str(synth.count), "--val-count", str(synth.val_count),
                 "--size", synth.size, "--seed", str(synth.seed)]
    name = hashlib.sha256(" ".join(arguments).encode()).hexdigest()[:8]
    folder = out / "data" / f"{synth.kind}-{name}"
    if not folder.exists():
        # VOC's own place below a folder of data, so that one set serves both formats.
        command = [trainer, "synth", *arguments, "--out", folder.with_suffix(".partial") / "VOC2012"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        folder.with_suffix(".partial").rename(folder)
    return folder


def compare(runs: list[Run], jobs: int) -> list[dict[str, Any]]:
    """Executes runs, `jobs` at a time, each in a process of its own; in the order given."""
    for run in runs:
        run.results.mkdir(parents=True, exist_ok=True)
    if jobs == 1:
        return [execute(run) for run in runs]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return list(pool.map(execute, runs))


def initialise(texts: list[str], trainer: Path, out: Path) -> list[tuple[str, Path | None]]:
    """Name and converted weights of every initialisation."""
    given = [Initialisation.parse(text) for text in texts]
    if len({i.name for i in given}) != len(given):
        raise ValueError("two initialisations have the same name")
    return [(i.name, i.converted(trainer, out / "weights")) for i in given]


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: a row an initialisation, a column a score; mean and standard deviation over seeds."""
    names = list(dict.fromkeys(record["initialisation"] for record in records))
    columns = list(dict.fromkeys((r["protocol"], score) for r in records for score in r["scores"]))
    lines = ["| initialisation | " + " | ".join(f"{protocol}, {score}" for protocol, score in columns) + " |",
             "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = []
        for protocol, score in columns:
            values = [r["scores"][score] for r in records
                      if r["initialisation"] == name and r["protocol"] == protocol]
            deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{deviation}" if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
