"""The machine: what it is, and what it has left of memory, a container's limit included, and cores."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that this process can still use: what is available, within a container's limit and its own."""
    return max(0, min([psutil.virtual_memory().available, *_container(), *_address_space()]))


def resident_memory() -> int:
    """Bytes of this process that lie in memory."""
    return psutil.Process().memory_info().rss


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, str | int | float]:
    """What a run was made on, for its result: processor, cores, memory and system."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = found[1] if found else cpu
    memory = round(psutil.virtual_memory().total / 2**30, 1)
    return {"cpu": cpu, "cores": cores(), "memory_gb": memory, "system": platform.platform()}


def _container() -> Iterator[int]:
    """What is left below the limit of each control group that this process is in (Linux, both versions)."""
    names = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
    for folder in _groups():
        for limit, usage in names.items():
            with suppress(OSError, ValueError):  # "max" is no limit
                most = int((folder / limit).read_text())
                cache = 0
                with suppress(OSError, ValueError, KeyError):  # files that the system forgets when memory is needed
                    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    cache = int(stat["inactive_file"])
                yield most - int((folder / usage).read_text()) + cache


def _groups() -> Iterator[Path]:
    """The folders of this process's control groups, and of those around them."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory") or "memory" in controllers.split(","):
                root = CGROUPS / ("memory" if controllers else "")
                folder = root / path.lstrip("/")
                yield from (place for place in (folder, *folder.parents) if place.is_relative_to(root))


def _address_space() -> Iterator[int]:
    """What is left of the address space where it is limited (ulimit -v)."""
    process = psutil.Process()
    if hasattr(process, "rlimit"):
        limit, _ = process.rlimit(psutil.RLIMIT_AS)
        if limit not in (psutil.RLIM_INFINITY, -1):
            yield limit - process.memory_info().vms
