"""How programs are started and watched: natively, or under `tmem run`."""

import hashlib
import json
import os
import re
import subprocess
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]


class Failed(Exception):
    """A program, or what it needs, did not do what it should; says what."""


def built():
    """The folder with tmem: TMEM_BIN_DIR, or that of a build made now."""
    if given := os.environ.get("TMEM_BIN_DIR"):
        return Path(given)
    packages = ["tmem-cli", "tmem-shim", "tmem-memserver"]
    names = [word for package in packages for word in ("-p", package)]
    subprocess.run(["cargo", "build", "--release", "--quiet", *names], cwd=TREE, check=True)
    return TREE / os.environ.get("CARGO_TARGET_DIR", "target") / "release"


def environment():
    """For programs to do the same each time: one thread, one order of hashes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TMEM_")}
    fixed = {"LC_ALL": "C", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | fixed | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Place:
    """Where programs run; `prefix` is put before their command lines."""

    def __init__(self, folder, prefix=()):
        self.folder = folder
        self.prefix = list(prefix)

    def start(self, argv, stdin=None, stdout=os.devnull):
        line = [str(word) for word in [*self.prefix, *argv]]
        return Child(Path(argv[0]).name, line, self.folder, stdin, stdout)


class Child:
    """A started program; it is killed if its block is left before it ended."""

    def __init__(self, name, argv, folder, stdin, stdout):
        self.name = name
        self.errors = folder / "errors"
        with open(stdin or os.devnull, "rb") as source, open(stdout, "wb") as sink:
            with open(self.errors, "wb") as errors:
                self.process = subprocess.Popen(
                    argv, stdin=source, stdout=sink, stderr=errors, cwd=folder, env=environment()
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.returncode is None:
            # tmem hands this on to the program under it.
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def peak(self):
        """Waits for its end; the most memory that it had resident, in bytes."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = code = os.waitstatus_to_exitcode(status)
        if code != 0:
            said = self.errors.read_text(errors="replace").strip()
            raise Failed(f"{self.name} ended with status {code}: {said[-500:]}")
        return usage.ru_maxrss * 1024


class MemServer:
    """A memory server on a free port of this machine."""

    def __init__(self, binaries, capacity):
        argv = [binaries / "tmem-memserver", "--listen", "127.0.0.1:0", "--capacity", str(capacity)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:\d+", ready)
        if not found:
            self.process.kill()
            raise Failed(f"the memory server does not start: {ready}")
        self.address = found[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def run_native(program, folder):
    seconds, peak, digest = program.run(Place(folder))
    return {"seconds": seconds, "peak_bytes": peak, "digest": digest}


def attempt(program, place):
    """The same in a place where it may fail: it has no digest then, and why."""
    begin = time.monotonic()
    try:
        seconds, _, digest = program.run(place)
    except (Failed, OSError) as failure:
        return {"seconds": time.monotonic() - begin, "digest": None, "failure": str(failure)}
    return {"seconds": seconds, "digest": digest}


def run_paged(program, folder, binaries, server, budget):
    """The same under tmem, with the figures of its pager."""
    figures = folder / "figures"
    figures.unlink(missing_ok=True)
    tmem = [binaries / "tmem", "run", "--strict", "--local", budget, "--server", server.address]
    run = attempt(program, Place(folder, [*tmem, "--stats-file", figures, "--"]))
    return run if "failure" in run else run | {"figures": json.loads(figures.read_text())}


def run_swapped(program, folder, swap, budget):
    """The same without tmem, with so much memory and swap."""
    with swap.group(budget) as prefix:
        before = swap.bytes_read()
        run = attempt(program, Place(folder, prefix))
        return run | {"read_bytes": swap.bytes_read() - before}
