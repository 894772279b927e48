"""What the right answers are: the same files run directly, by Python's own ONNX Runtime.

Models are replaced while requests are under way, so a reply is right if it is that of a file that was served at some
moment between its request and itself.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy
import onnxruntime

# Of values around one, summed in another order.
TOLERANCE = 2e-4


@dataclass
class Served:
    """A model file, and when it was served."""

    session: onnxruntime.InferenceSession
    since: float
    until: float = float("inf")


@dataclass
class Truth:
    """Every file that has been served, by name and version."""

    files: dict[tuple[str, int], list[Served]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begins(self, name: str, version: int, content: bytes) -> None:
        """From now on this file may be what answers."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        with self.lock:
            self.files.setdefault((name, version), []).append(Served(session, time.monotonic()))

    def ends(self, name: str, version: int, but_newest: bool = False) -> None:
        """From now on no file of this version answers, or none but the newest."""
        with self.lock:
            files = self.files[name, version]
            for served in files[:-1] if but_newest else files:
                served.until = min(served.until, time.monotonic())

    def candidates(self, name: str, version: int, since: float) -> list[onnxruntime.InferenceSession]:
        """The files that were served at some moment since `since`."""
        with self.lock:
            return [served.session for served in self.files.get((name, version), []) if served.until >= since]

    def forget(self, before: float) -> None:
        """Lets go of files that nobody can be answered from any more."""
        with self.lock:
            for key in self.files:
                self.files[key] = [served for served in self.files[key] if served.until >= before]


def layer(session: onnxruntime.InferenceSession, pixels: numpy.ndarray, name: str) -> numpy.ndarray:
    """One layer of pictures `[N, H, W, 3]`, un-normalised `[N, C, h, w]`."""
    return session.run([name], {"images": pixels})[0]


def unit(feature_map: numpy.ndarray) -> numpy.ndarray:
    """Each descriptor of `[C, h, w]` at length one."""
    return feature_map / numpy.maximum(numpy.linalg.norm(feature_map, axis=0, keepdims=True), 1e-12)


def nearest_cells(source: numpy.ndarray, target: numpy.ndarray, cells: numpy.ndarray) -> numpy.ndarray:
    """The cosine of each cell `[P, 2]` (x, y) of the source with every cell of the target, `[P, h*w]`."""
    descriptors = unit(source)[:, cells[:, 1], cells[:, 0]]
    return descriptors.T @ unit(target).reshape(len(target), -1)


def cell_centres(cells: numpy.ndarray, stride: int) -> numpy.ndarray:
    """Pixels of the picture, which was not resized."""
    return (cells + 0.5) * stride - 0.5


def close(found: numpy.ndarray, expected: numpy.ndarray) -> bool:
    """Whether two tensors are equal but for rounding."""
    return found.shape == expected.shape and bool(numpy.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE))
