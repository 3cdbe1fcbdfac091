"""Facts about this process: its version, memory and processor time."""

from __future__ import annotations

import os
import resource
import sys
from importlib import metadata
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rss_bytes() -> int:
    """Resident memory now, bytes; where /proc is missing, the largest so far."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def cpu_seconds() -> float:
    """User and system time of every thread, seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def version() -> str:
    """Version of the installed package; `0+unknown` when it runs from a tree that was never installed."""
    try:
        return metadata.version("acclimate")
    except metadata.PackageNotFoundError:
        return "0+unknown"
