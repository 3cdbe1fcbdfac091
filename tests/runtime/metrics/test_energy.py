"""Energy counters in the form that Linux gives them; there are none in a virtual machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.runtime.metrics.energy import Energy, gpus, zones

WRAPS_AT = 1_000_000_000


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, their cores, the memory of one, the platform, and what is no zone of RAPL's."""
    for folder, name in {
        "intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
    }.items():  # fmt: skip
        set_counter(tmp_path / folder, name, 500)
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def set_counter(folder: Path, name: str, microjoules: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{WRAPS_AT}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")


def test_zones_that_overlap_are_counted_once(powercap: Path) -> None:
    assert sorted(zone.name for zone in zones(powercap)) == ["dram-0", "package-0", "package-1"]


def test_a_counter_that_wraps_goes_on(powercap: Path) -> None:
    energy = Energy(zones(powercap), {})
    assert energy.joules() == {"dram-0": 0, "package-0": 0, "package-1": 0}
    for now, joules in ((WRAPS_AT - 500, 999.999), (2_000_500, 1002.0005), (2_000_500, 1002.0005)):
        set_counter(powercap / "intel-rapl:0", "package-0", now)
        assert energy.joules()["package-0"] == pytest.approx(joules - 0.0000, abs=2e-3)


def test_what_cannot_be_read_has_no_series(powercap: Path, tmp_path: Path) -> None:
    energy = Energy(zones(powercap), {})
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert sorted(energy.joules()) == ["dram-0", "package-0"]
    assert [zone.name for zone in zones(powercap)] == ["package-0", "dram-0"]
    assert zones(tmp_path / "absent") == []


class Nvml:
    """NVML's calls, as nvidia-ml-py names them, on a machine with two GPUs."""

    def nvmlInit(self) -> None:  # noqa: N802
        """Loads the driver's library."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        return number

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        return 1500 * (handle + 1)


def test_gpus_count_in_millijoules() -> None:
    assert Energy([], gpus(Nvml())).joules() == {"gpu-0": 1.5, "gpu-1": 3.0}


def test_no_driver_is_no_error() -> None:
    assert gpus(object()) == {}
