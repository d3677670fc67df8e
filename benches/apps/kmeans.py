"""kmeans.py POINTS: finds 16 groups of points in 16 dimensions; prints a digest of them."""

import hashlib
import sys

import numpy as np

GROUPS = DIMENSIONS = 16
ROUNDS = 8
# Points looked at together: what is computed of them stays small.
CHUNK = 1 << 13

count = int(sys.argv[1])
rng = np.random.default_rng(3)
centres = rng.standard_normal((GROUPS, DIMENSIONS)) * 4
points = np.empty((count, DIMENSIONS))
group = np.zeros(count, dtype=np.int64)
for at in range(0, count, CHUNK):
    part = points[at : at + CHUNK]
    part[:] = rng.standard_normal(part.shape) + centres[rng.integers(0, GROUPS, len(part))]

centres = points[:: count // GROUPS][:GROUPS].copy()
for _ in range(ROUNDS):
    sums = np.zeros_like(centres)
    sizes = np.zeros(GROUPS, dtype=np.int64)
    lengths = (centres**2).sum(axis=1)
    for at in range(0, count, CHUNK):
        part = points[at : at + CHUNK]
        nearest = (lengths - 2 * (part @ centres.T)).argmin(axis=1)
        group[at : at + CHUNK] = nearest
        sizes += np.bincount(nearest, minlength=GROUPS)
        for d in range(DIMENSIONS):
            sums[:, d] += np.bincount(nearest, weights=part[:, d], minlength=GROUPS)
    centres = sums / np.maximum(sizes, 1)[:, None]

print(sizes.tolist(), hashlib.sha256(centres.tobytes() + group.tobytes()).hexdigest())
