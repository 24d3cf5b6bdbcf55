"""
What this process may use of the machine: memory and processor cores, as a container limits them.

Both versions of Linux's control groups are read. A process sees its own group at the root of the
mount, or, where the host's mount is what it sees, at the path that /proc/self/cgroup names. A limit
holds for all groups below it, so every group from there up to the root has a say.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")

# Files that say the limit and what is used, and the line of memory.stat with what is used but would
# be given back when asked for: cached files, such as a checkpoint that was just read.
MEMORY_FILES = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int:
    """Bytes: of the machine, or of the container where that is less."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([available_of_machine() or pages, *memory_left(mount, membership)])


def available_of_machine(meminfo: Path = MEMINFO) -> int | None:
    """Bytes: Linux's own estimate, which counts what can be reclaimed."""
    found = [line for line in read(meminfo).splitlines() if line.startswith("MemAvailable:")]
    return int(found[0].split()[1]) * 1024 if found else None


def memory_left(mount: Path, membership: Path) -> Iterator[int]:
    """Bytes that each group with a limit has left."""
    for controller, limit_file, used_file, reclaimable in MEMORY_FILES:
        for group in groups(mount, membership, controller):
            limit, used = read(group / limit_file), read(group / used_file)
            if limit.isdigit() and used.isdigit():
                cached = statistic(group / "memory.stat", reclaimable)
                yield max(0, int(limit) - int(used) + cached)


def usable_cores(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int:
    """Cores that this process may run on, or, rounded up, the time that its group is given."""
    return min([cores_of_machine(), *map(math.ceil, core_quotas(mount, membership))])


def cores_of_machine() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_quotas(mount: Path, membership: Path) -> Iterator[float]:
    """Seconds of processor time in a second that each group with a quota may take."""
    for group in groups(mount, membership, ""):
        quota, _, period = read(group / "cpu.max").partition(" ")
        yield from quotient(quota, period)
    for group in groups(mount, membership, "cpu"):
        yield from quotient(read(group / "cpu.cfs_quota_us"), read(group / "cpu.cfs_period_us"))


def quotient(quota: str, period: str) -> list[float]:
    """Nothing where there is no quota, which version 1 says by -1 and version 2 by a word."""
    is_limited = quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0
    return [int(quota) / int(period)] if is_limited else []


def groups(mount: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Folders from the process's own group up to the root; "" is version 2's one hierarchy."""
    for line in read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            inner = Path(path.lstrip("/"))
            own = inner if ".." not in inner.parts else Path()  # outside of what this process sees
            yield from (mount / controller / part for part in (own, *own.parents))
            return


def statistic(path: Path, name: str) -> int:
    for line in read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
