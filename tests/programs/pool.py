"""pool.py N METHOD: scores seeds over a large shared array in a pool of processes,
generation by generation, then forks once by itself; prints digests."""

import hashlib
import multiprocessing
import os
import sys

import numpy as np

data = None


def begin(array):
    global data
    data = array


def score(seed):
    rng = np.random.default_rng(seed)
    at = rng.integers(0, data.size, 2000)
    return float((data[at] * rng.standard_normal(2000)).sum())


def main():
    global data
    count, method = int(sys.argv[1]), sys.argv[2]
    data = np.random.default_rng(1).standard_normal(count)
    context = multiprocessing.get_context(method)
    # Without fork the array has to be sent to each process: a part will do.
    sent = {} if method == "fork" else {"initializer": begin, "initargs": (data[:100000],)}
    digest = hashlib.sha256()
    for generation in range(3):
        with context.Pool(3, **sent) as pool:
            scores = pool.map(score, range(generation * 100, generation * 100 + 12))
        digest.update(repr(scores).encode())
        data *= 1.0 + generation / 1000
    print(method, digest.hexdigest(), float(data.sum()), flush=True)
    pid = os.fork()
    if pid == 0:
        print("child", float(data[::500].sum()), flush=True)
        os._exit(3)
    print("parent", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
