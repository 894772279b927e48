"""Times the trainer's step against the same step in eager PyTorch, and DenseCL against MoCo-v2.

    python compare.py --trainer target/release/densecl-trainer
    python compare.py --trainer densecl-trainer --python venv/bin/python --device cuda --arch resnet50 \\
        --batch 256 --view 224 --canvas 256 --bn-splits 8 --queue 65536 --precision bf16 --channels-last

All programs are started once and stay warm; blocks of steps then go round in alternation, while
the others wait. A ratio is taken within each round, so that a machine that is slower for a while
is slower for both sides of it. Reported are the medians over the rounds and, in brackets, the
quartiles. On the CPU the time on processors is reported beside the clock's: on a machine that
others use at the same time, it is the one to go by. Needs nothing beyond Python itself; pytorch_step.py needs requirements.txt.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
OURS, MOCO, TORCH = "densecl-trainer", "densecl-trainer, MoCo-v2", "PyTorch, eager"


class Program:
    """A process that takes steps on demand."""

    def __init__(self, command, env):
        self.command = [str(word) for word in command]
        self.process = subprocess.Popen(self.command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.blocks = []

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"`{' '.join(self.command)}` ended with status {self.process.wait()}")
        return json.loads(line)

    def run(self, steps):
        self.process.stdin.write(f"run {steps}\n")
        self.process.stdin.flush()
        self.blocks.append(self.read())

    def seconds(self, clock="mean_seconds"):
        return [block[clock] for block in self.blocks]

    def device_bytes(self):
        """What the driver says that the process holds on the GPU, its caches included."""
        query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        try:
            lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
        except (OSError, subprocess.CalledProcessError):
            return None
        used = dict(line.split(",") for line in lines if line.count(",") == 1)
        mebibytes = used.get(str(self.process.pid), "").strip()
        return int(mebibytes) << 20 if mebibytes.isdigit() else None

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def trainer_arguments(o, method):
    """The configuration as `bench` takes it. What is the trainer's default is not named, so that older
    trainers, which lack the key, can be timed too."""
    settings = {
        "method": method,
        "network.architecture": o.arch,
        "data.view_px": o.view,
        "data.canvas_px": o.canvas,
        "data.workers": o.workers,
        "optimizer.batch": o.batch,
        "contrast.queue_length": o.queue,
        "contrast.bn_splits": o.bn_splits,
    }
    if o.precision != "float32":
        settings["network.precision"] = o.precision
    if o.channels_last:
        settings["network.memory_format"] = "channels-last"
    overrides = [f"{key}={value}" for key, value in settings.items()] + o.set
    return [o.trainer, "bench", "--config", HERE / "config.toml", "--device", o.device, "--set", *overrides]


def pytorch_arguments(o):
    command = [o.python, HERE / "pytorch_step.py", "--serve", "--device", o.device, "--arch", o.arch]
    command += ["--batch", o.batch, "--view", o.view, "--canvas", o.canvas, "--queue", o.queue]
    command += ["--bn-splits", o.bn_splits, "--precision", o.precision, "--warmup", o.warmup]
    command += ["--augment", o.augment, "--optimizer", o.optimizer]
    return command + (["--channels-last"] if o.channels_last else [])


def start(o):
    env = dict(os.environ)
    if o.threads:
        env |= {"OMP_NUM_THREADS": str(o.threads), "MKL_NUM_THREADS": str(o.threads)}
    # The trainer's libtorch must not take the place of the one that came with Python's torch.
    python_env = {key: value for key, value in env.items() if key != "LD_LIBRARY_PATH"}
    serve = ["--serve", "--warmup", o.warmup]
    programs = {OURS: Program(trainer_arguments(o, "densecl") + serve, env)}
    if not o.skip_pytorch:
        programs[TORCH] = Program(pytorch_arguments(o), python_env)
    if not o.skip_moco:
        programs[MOCO] = Program(trainer_arguments(o, "moco-v2") + serve, env)
    return programs, env


def loader(o, env):
    command = trainer_arguments(o, "densecl") + ["--part", "loader", "--steps", o.loader_steps, "--json"]
    result = subprocess.run([str(word) for word in command], env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout)["timings"][0]


def spread(values):
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": statistics.median(values), "quartiles": [quartiles[0], quartiles[2]],
            "least": min(values), "most": max(values)}


def summarize(o, programs):
    steps = {}
    for name, program in programs.items():
        last = program.blocks[-1]
        steps[name] = {
            "command": program.command,
            "setting": program.setting,
            "seconds": spread(program.seconds()),
            "cpu_seconds": spread(program.seconds("mean_cpu_seconds")),
            "blocks": program.blocks,
            "peak_resident_bytes": last.get("peak_resident_bytes"),
            "device_bytes": program.device_bytes() if o.device == "cuda" else None,
        }
    pairs = [(a, b) for a, b in ((TORCH, OURS), (OURS, MOCO)) if a in programs and b in programs]
    ratio = lambda clock: {
        f"{a} / {b}": spread([x / y for x, y in zip(programs[a].seconds(clock), programs[b].seconds(clock))])
        for a, b in pairs
    }
    return {"steps": steps, "ratios": ratio("mean_seconds"), "cpu_ratios": ratio("mean_cpu_seconds")}


def table(o, report):
    brackets = lambda s, form: f"{s['median']:{form}} ({s['quartiles'][0]:{form}}–{s['quartiles'][1]:{form}})"
    setting = f"{o.arch} at {o.view} px, batch {o.batch} on {o.device}, {o.precision}"
    setting += f", {'channels-last' if o.channels_last else 'contiguous'}, bn_splits {o.bn_splits}, queue {o.queue}"
    threads = o.threads or "PyTorch's default number of"
    lines = [f"{setting}, {threads} threads; {o.rounds} rounds of {o.steps} steps", "",
             "| | s/step | CPU s/step | pairs/s | memory |", "|---|---|---|---|---|"]
    for name, step in report["steps"].items():
        held = step["device_bytes"] or step["peak_resident_bytes"]
        memory = f"{held / 1e9:.2f} GB" if held else "unknown"
        pairs = o.batch / step["seconds"]["median"]
        times = f"{brackets(step['seconds'], '.3f')} | {brackets(step['cpu_seconds'], '.3f')}"
        lines.append(f"| {name} | {times} | {pairs:.1f} | {memory} |")
    lines += ["", "| time of … / time of … | clock | CPU |", "|---|---|---|"]
    for name, ratio in report["ratios"].items():
        lines.append(f"| {name} | {brackets(ratio, '.3f')} | {brackets(report['cpu_ratios'][name], '.3f')} |")
    if "loader" in report:
        lines += ["", f"loader alone: {report['loader']['pairs_per_second']:.1f} images/s with {o.workers} threads"]
    return "\n".join(lines)


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--trainer", default="target/release/densecl-trainer", help="its binary")
    parser.add_argument("--python", default=sys.executable, help="a Python with requirements.txt")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--channels-last", action="store_true", help="NHWC memory, on both sides")
    parser.add_argument("--augment", choices=("batched", "torchvision"), default="batched", help="PyTorch's views")
    parser.add_argument("--optimizer", choices=("fused", "foreach"), default="fused", help="PyTorch's SGD")
    parser.add_argument("--threads", type=int, help="CPU threads of each program [default: 1 on the CPU]")
    for name, default, text in (
        ("batch", 64, "images a step"), ("view", 96, "pixels of a view's side"),
        ("canvas", 128, "pixels of an image's side"), ("queue", 4096, "vectors in each queue"),
        ("bn-splits", 2, "groups of BatchNorm"), ("workers", 1, "threads of the loader"),
        ("rounds", 10, "blocks of each program"), ("steps", 2, "steps in a block"),
        ("warmup", 2, "steps before the clock starts"), ("loader-steps", 10, "batches of the loader; 0 skips it"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} [default: {default}]")
    parser.add_argument("--skip-moco", action="store_true", help="leave MoCo-v2 out")
    parser.add_argument("--skip-pytorch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more settings of the trainer")
    parser.add_argument("--json", type=pathlib.Path, help="where to write all figures")
    o = parser.parse_args()
    if o.threads is None and o.device == "cpu":
        o.threads = 1
    return o


def main():
    o = options()
    programs, env = start(o)
    for program in programs.values():
        program.setting = program.read()
    for i in range(o.rounds):
        # Back and forth, so that a steady drift favours no one.
        for program in list(programs.values())[:: 1 if i % 2 == 0 else -1]:
            program.run(o.steps)
        seconds = ", ".join(f"{name} {program.seconds()[-1]:.3f} s" for name, program in programs.items())
        print(f"round {i + 1} of {o.rounds}: {seconds}", file=sys.stderr)
    report = {"setting": {key: str(value) for key, value in vars(o).items()}} | summarize(o, programs)
    for program in programs.values():
        program.stop()
    if o.loader_steps:
        report["loader"] = loader(o, env)
    print(table(o, report))
    if o.json:
        o.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
