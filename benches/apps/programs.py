"""The programs, and how large each is to be to take a given amount of memory."""

import random
import subprocess
import time
from pathlib import Path

from place import TREE, digest_of
from store import Benchmark, Clients, Pipelined, Store, use

HERE = Path(__file__).resolve().parent
# Debian's: a version manager's has no numpy.
PYTHON = "/usr/bin/python3"

# Bytes that one of what a program counts in takes at the program's peak.
NUMBER = 8
POINT = 137
EDGE = 26
ROW_OF_FRAME = 180
ROW_OF_TABLE = 410
LINE = 141  # for lines of 100 bytes
LINE_BYTES = 100


class Plain:
    """A program that has its work in its arguments or input, and its answer in its output."""

    packages = ["python3", "python3-numpy"]

    def __init__(self, folder, argv, stdin=None):
        self.output = folder / "output"
        self.argv, self.stdin = argv, stdin

    def run(self, place):
        """Seconds, peak of the process in bytes, digest of the output."""
        begin = time.monotonic()
        with place.start(self.argv, self.stdin, self.output) as child:
            peak = child.peak()
        return time.monotonic() - begin, peak, digest_of(self.output)


class Quicksort(Plain):
    packages = ["g++"]

    def __init__(self, folder, size):
        binary = folder / "quicksort"
        subprocess.run(["g++", "-O2", "-o", binary, HERE / "quicksort.cpp"], check=True)
        super().__init__(folder, [binary, size // NUMBER])


class Redis:
    """Paged is the server; timed are the answers to its clients."""

    packages = ["redis-server"]
    clients = Pipelined

    def __init__(self, folder, size):
        self.socket = folder / "socket"
        self.store = Store(size)
        self.reading = self.clients(self.store)

    def run(self, place):
        argv = ["redis-server", "--port", "0", "--unixsocket", self.socket]
        with place.start([*argv, "--save", "", "--appendonly", "no"]) as child:
            seconds, digest = use(self.store, self.reading, str(self.socket))
            return seconds, child.peak(), digest


class RedisOfMany(Redis):
    clients = Clients


class RedisBenchmark(Redis):
    packages = [*Redis.packages, "redis-tools"]
    clients = Benchmark


class KMeans(Plain):
    def __init__(self, folder, size):
        super().__init__(folder, [PYTHON, HERE / "kmeans.py", size // POINT])


class PageRank(Plain):
    def __init__(self, folder, size):
        super().__init__(folder, [PYTHON, HERE / "pagerank.py", size // EDGE])


class Pool(Plain):
    """Processes that share a large array with their parent; its own peak counts."""

    def __init__(self, folder, size):
        script = TREE / "tests/programs/pool.py"
        super().__init__(folder, [PYTHON, script, size // NUMBER, "fork"])


class DataFrame(Plain):
    packages = ["python3"]
    # Large, so that it is used where it is and not installed.
    optional = "python3-pandas"

    def __init__(self, folder, size):
        super().__init__(folder, [PYTHON, HERE / "dataframe.py", size // ROW_OF_FRAME])


class Sqlite(Plain):
    packages = ["sqlite3"]

    def __init__(self, folder, size):
        script = folder / "joins.sql"
        text = (TREE / "tests/programs/joins.sql").read_text()
        script.write_text(text.replace(":n", str(size // ROW_OF_TABLE)))
        super().__init__(folder, ["sqlite3", "-bail", ":memory:"], script)


class Sort(Plain):
    packages = ["coreutils"]

    def __init__(self, folder, size):
        lines = folder / "lines"
        rng = random.Random(1)
        with open(lines, "wb") as file:
            for _ in range(size // LINE):
                file.write(rng.randbytes(LINE_BYTES // 2).hex().encode()[1:] + b"\n")
        # With so large a buffer it keeps everything in memory, and uses no files.
        argv = ["sort", "--parallel=1", "-S", f"{4 * size}b", "-T", "/nonexistent", lines]
        super().__init__(folder, argv)


PROGRAMS = {
    "quicksort": Quicksort,
    "redis": Redis,
    "redis-clients": RedisOfMany,
    "redis-benchmark": RedisBenchmark,
    "kmeans": KMeans,
    "pagerank": PageRank,
    "pool": Pool,
    "dataframe": DataFrame,
    "sqlite": Sqlite,
    "sort": Sort,
}


def is_missing(program):
    """The package that is to be there and is not; nothing when all is well."""
    package = getattr(program, "optional", None)
    if package is None:
        return None
    module = package.removeprefix("python3-")
    found = subprocess.run([PYTHON, "-c", f"import {module}"], stderr=subprocess.DEVNULL)
    return package if found.returncode else None
