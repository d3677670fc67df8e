"""What the kernel does by itself: a memory cgroup whose programs swap to zram."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from place import TREE, Failed

CONTROL = Path("/sys/class/zram-control")
CGROUPS = Path("/sys/fs/cgroup")
SECTOR = 512


class Zram:
    """A swap device of zram with room for so many bytes; it is gone at the end."""

    def __init__(self, capacity):
        if os.geteuid() != 0:
            raise Failed("swap and cgroups need root: run it with sudo")
        packages = ["kmod", "mount", "util-linux"]
        subprocess.run([TREE / "scripts/install-packages", *packages], check=True, stdout=sys.stderr)
        if not CONTROL.is_dir():
            subprocess.run(["modprobe", "zram"], check=False, stderr=subprocess.DEVNULL)
        try:
            self.number = (CONTROL / "hot_add").read_text().strip()
        except OSError as error:
            raise Failed(f"this kernel has no zram: {error}") from error
        self.device = Path("/dev") / f"zram{self.number}"
        self.block = Path("/sys/block") / self.device.name
        try:
            (self.block / "disksize").write_text(str(capacity))
            quiet = {"check": True, "stdout": subprocess.DEVNULL}
            subprocess.run(["mkswap", self.device], **quiet)
            subprocess.run(["swapon", "-p", "32000", self.device], **quiet)
        except BaseException:
            self.remove()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["swapoff", self.device], check=True)
        self.remove()

    def remove(self):
        (CONTROL / "hot_remove").write_text(self.number)

    def bytes_read(self):
        return int((self.block / "stat").read_text().split()[2]) * SECTOR

    @contextmanager
    def group(self, limit):
        """What to put before a command line, so that it may have so many bytes in memory."""
        if (CGROUPS / "memory").is_dir():
            parent, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            parent, name = CGROUPS, "memory.max"
            (parent / "cgroup.subtree_control").write_text("+memory")
        group = parent / f"tmem-applications-{os.getpid()}"
        group.mkdir()
        try:
            (group / name).write_text(str(limit))
            yield ["sh", "-c", 'echo $$ > "$0" && exec "$@"', group / "cgroup.procs"]
        finally:
            remove_group(group)


def remove_group(group):
    # Its last process may be on the way out.
    for _ in range(100):
        for process in (group / "cgroup.procs").read_text().split():
            try:
                os.kill(int(process), signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.1)
    raise Failed(f"{group} cannot be removed: something is in it")
