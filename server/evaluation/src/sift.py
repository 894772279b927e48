"""SIFT by OpenCV, for `densecl-server evaluate --baseline sift`.

Reads requests from standard input, one JSON document a line, and answers each with one on standard output:

  {"match": [SOURCE, TARGET]}      -> {"matches": [[xs, ys, xt, yt, cosine, ratio], ...]}
  {"describe": PICTURE, "size": [WIDTH, HEIGHT], "grid": [COLUMNS, ROWS], "out": FILE.npy}
                                   -> {"described": true}; the file holds [128, ROWS, COLUMNS] float32

or with {"error": "..."}. The first line it writes is {"opencv": VERSION}, or an error if there is no OpenCV.
"""

import json
import sys

# Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004, section 7.1.
MAX_RATIO = 0.8
# Of a keypoint in each cell: its descriptor covers 36 pixels, about as many as a raw patch does.
DENSE_DIAMETER_PX = 6.0
REMEMBERED = 8


def answer(reply):
    print(json.dumps(reply), flush=True)


try:
    import cv2
    import numpy as np
except ImportError as error:
    answer({"error": f"this Python has no OpenCV: {error}"})
    sys.exit(0)


def make_sift():
    try:
        # Without it, keypoints lie a quarter of a pixel off.
        return cv2.SIFT_create(enable_precise_upscale=True)
    except TypeError:
        return cv2.SIFT_create()


SIFT = make_sift()
KNOWN = {}


def read_grey(path):
    picture = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise ValueError(f"OpenCV cannot read {path}")
    return picture


def keypoints(path):
    """Where the keypoints are, [N, 2], and their descriptors, [N, 128]."""
    if path not in KNOWN:
        found, descriptors = SIFT.detectAndCompute(read_grey(path), None)
        while len(KNOWN) >= REMEMBERED:
            KNOWN.pop(next(iter(KNOWN)))
        places = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
        KNOWN[path] = places, (np.zeros((0, 128), np.float32) if descriptors is None else descriptors)
    return KNOWN[path]


def match(source, target):
    """Mutual nearest neighbours that pass the ratio test."""
    (source_places, source_descriptors), (target_places, target_descriptors) = keypoints(source), keypoints(target)
    if len(source_places) < 2 or len(target_places) < 2:
        return []
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    back = {found.queryIdx: found.trainIdx for found in matcher.match(target_descriptors, source_descriptors)}
    matches = []
    for best, second in matcher.knnMatch(source_descriptors, target_descriptors, k=2):
        ratio = best.distance / second.distance if second.distance > 0 else 1.0
        if back[best.trainIdx] == best.queryIdx and ratio <= MAX_RATIO:
            one, other = source_descriptors[best.queryIdx], target_descriptors[best.trainIdx]
            cosine = float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))
            places = [*source_places[best.queryIdx], *target_places[best.trainIdx]]
            matches.append([*map(float, places), cosine, float(ratio)])
    return matches


def describe(path, size, grid):
    """A descriptor for the centre of every cell, upright and at one scale: dense SIFT."""
    picture = read_grey(path)
    (width, height), (columns, rows) = size, grid
    shrinks = width < picture.shape[1]
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    centre = lambda cell, pixels, cells: (cell + 0.5) * pixels / cells - 0.5
    points = [
        cv2.KeyPoint(centre(x, width, columns), centre(y, height, rows), DENSE_DIAMETER_PX, 0.0)
        for y in range(rows)
        for x in range(columns)
    ]
    described, descriptors = SIFT.compute(picture, points)
    if len(described) != len(points):
        raise ValueError(f"OpenCV described {len(described)} of {len(points)} cells of {path}")
    return np.ascontiguousarray(descriptors.T.reshape(128, rows, columns), np.float32)


answer({"opencv": cv2.__version__})
for line in sys.stdin:
    request = json.loads(line)
    try:
        if "match" in request:
            answer({"matches": match(*request["match"])})
        else:
            np.save(request["out"], describe(request["describe"], request["size"], request["grid"]))
            answer({"described": True})
    except (ValueError, OSError, cv2.error) as error:
        answer({"error": str(error)})
