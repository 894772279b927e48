"""The work of `ladder`'s rung `direct` in Python: OpenCV decodes and resizes, onnxruntime runs.

Reads a number of seconds per line and answers with images per second. A first trial chooses the
faster of two arrangements of the same threads: one session with all of them, or one session each.
"""

from __future__ import annotations

import argparse
import io
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

TRIAL_S = 2.0
MULTIPLE = 32


class Worker:
    """One thread's session."""

    def __init__(self, arguments: argparse.Namespace, threads: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
        self.layer = arguments.layer
        self.side = arguments.side

    def reply(self, file: bytes) -> bytes:
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        height, width = picture.shape[:2]
        scale = self.side / max(height, width)
        size = [max(1, int(length * scale / MULTIPLE + 0.5)) * MULTIPLE for length in (width, height)]
        image = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        (features,) = self.session.run([self.layer], {"images": image[None]})
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        out = io.BytesIO()
        np.save(out, features[0])
        return out.getvalue()


def images_per_second(workers: list[Worker], files: list[bytes], seconds: float) -> float:
    counts = [0] * len(workers)
    begun = time.perf_counter()

    def loop(index: int) -> None:
        while time.perf_counter() - begun < seconds:
            workers[index].reply(files[counts[index] % len(files)])
            counts[index] += 1

    threads = [threading.Thread(target=loop, args=(index,)) for index in range(len(workers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--layer", required=True)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files = [path.read_bytes() for path in sorted(arguments.pictures.glob("*.jpg"))]
    arrangements = [
        [Worker(arguments, arguments.threads)],
        [Worker(arguments, 1) for _ in range(arguments.threads)],
    ]
    best = max(arrangements, key=lambda workers: images_per_second(workers, files, TRIAL_S))
    for line in sys.stdin:
        print(images_per_second(best, files, float(line)), flush=True)


if __name__ == "__main__":
    main()
