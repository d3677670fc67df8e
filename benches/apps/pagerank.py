"""pagerank.py EDGES: ranks the nodes of a random graph; prints the first ones and a digest."""

import hashlib
import sys

import numpy as np

ROUNDS = 8
DAMPING = 0.85
# Edges made together, so that making them takes no more memory than using them.
CHUNK = 1 << 16

edges = int(sys.argv[1])
nodes = max(edges // 16, 1)
rng = np.random.default_rng(5)
source = np.empty(edges, dtype=np.int64)
target = np.empty(edges, dtype=np.int64)
for at in range(0, edges, CHUNK):
    size = len(source[at : at + CHUNK])
    source[at : at + size] = rng.integers(0, nodes, size)
    # Few nodes have many links to them, and most have few.
    target[at : at + size] = nodes * rng.random(size) ** 3

degree = np.maximum(np.bincount(source, minlength=nodes), 1)
rank = np.full(nodes, 1 / nodes)
for _ in range(ROUNDS):
    flow = (rank / degree)[source]
    rank = (1 - DAMPING) / nodes + DAMPING * np.bincount(target, flow, minlength=nodes)
    # Before the next one is made: a name keeps what it stands for.
    del flow

best = np.argsort(-rank, kind="stable")[:10]
print(best.tolist(), rank[best].tolist(), hashlib.sha256(rank.tobytes()).hexdigest())
