"""Joules that the machine has used, where its counters can be read: RAPL for processors, NVML for NVIDIA GPUs.

Both count the whole machine and not this process. Neither is there in most virtual machines, and Linux shows RAPL to
root alone unless told otherwise; what cannot be read is left out.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

log = structlog.stdlib.get_logger("acclimate.energy")

POWERCAP = Path("/sys/class/powercap")
MICRO, MILLI = 1e-6, 1e-3


@dataclass(slots=True)
class Zone:
    """One RAPL zone (Linux, Documentation/power/powercap/powercap.rst): a counter in microjoules that wraps."""

    name: str
    file: Path
    wraps_at: int
    last: int
    total: int = 0

    def joules(self) -> float:
        """Since this object was made."""
        now = int(self.file.read_text())
        self.total += now - self.last if now >= self.last else now + self.wraps_at - self.last
        self.last = now
        return self.total * MICRO


def zones(powercap: Path = POWERCAP) -> list[Zone]:
    """Readable zones that do not overlap: processor packages, and memory where it is counted apart."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            if name.startswith("package-"):
                pass
            elif name == "dram":
                parent = powercap / folder.name.rpartition(":")[0]
                name = f"dram-{(parent / 'name').read_text().strip().removeprefix('package-')}"
            else:
                continue
            file = folder / "energy_uj"
            found.append(Zone(name, file, int((folder / "max_energy_range_uj").read_text()), int(file.read_text())))
        except (OSError, ValueError) as error:
            log.debug("an energy counter cannot be read", folder=str(folder), reason=str(error))
    return found


def gpus(library: Any = None) -> dict[str, Callable[[], float]]:
    """What reads the joules of each NVIDIA GPU that counts them (Volta and later) since its driver was loaded."""
    try:
        nvml = importlib.import_module("pynvml") if library is None else library
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        readers = {f"gpu-{number}": _reader(nvml, handle) for number, handle in enumerate(handles)}
        for read in readers.values():
            read()
    except Exception as error:  # NVML's own errors are classes of a library that may be missing.
        log.debug("no GPU's energy can be read", reason=str(error))
        return {}
    return readers


def _reader(nvml: Any, handle: Any) -> Callable[[], float]:
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * MILLI


@dataclass(slots=True)
class Energy:
    """Every counter that can be read; safe from any thread."""

    zones: list[Zone] = field(default_factory=zones)
    gpus: dict[str, Callable[[], float]] = field(default_factory=gpus)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def joules(self) -> dict[str, float]:
        """By source; one whose counter fails now is left out."""
        found = {}
        with self.lock:
            for name, read in [(zone.name, zone.joules) for zone in self.zones] + list(self.gpus.items()):
                try:
                    found[name] = read()
                except Exception as error:  # As above.
                    log.debug("an energy counter cannot be read", source=name, reason=str(error))
        return found
