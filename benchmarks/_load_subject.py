"""What the daemon is measured with under load: a bundle, its inputs, and the same engine in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.oip.v1 import model_statistics_pb2
from acclimate.runtime.bundle import Bundle
from acclimate.runtime.client.local import LocalDaemon, local_daemon
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.security import tokens
from benchmarks._load_generator import INFER, connected


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a bundle, its engine in this process, inputs `[N, ...]`, seconds a phase may take."""

    bundle: Bundle
    engine: Engine
    inputs: NDArray[Any]
    seconds: float
    folder: Path

    @property
    def model(self) -> str:
        """Its name."""
        return self.bundle.manifest.name

    def infer(self, rows: int, session: str = "", *, adapt: bool = True, start: int = 0) -> bytes:
        """A request of `rows` samples, serialised."""
        samples = self.samples(rows, start)
        message = oip.ModelInferRequest(
            model_name=self.model,
            inputs=[
                {"name": self.bundle.manifest.inputs[0].name, "datatype": "UINT8", "shape": samples.shape},
            ],
            raw_input_contents=[samples.tobytes()],
        )
        if session:
            message.parameters["sequence_id"].string_param = session
            message.parameters["acclimate_adapt"].bool_param = adapt
        return message.SerializeToString()

    def samples(self, rows: int, start: int = 0) -> NDArray[Any]:
        """Some of the inputs."""
        return np.take(self.inputs, range(start, start + rows), axis=0, mode="wrap")

    @contextmanager
    def serving(self, *options: str, **settings: Mapping[str, float | str]) -> Iterator[LocalDaemon]:
        """A daemon of its own, of these options; `settings` are sections of its configuration.

        An answer has one thread, as here.
        """
        sections = {"engine": {"intra_op_threads": 1}, **settings}
        lines = [
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in s.items()) for name, s in sections.items()
        ]
        file = self.folder / "acclimate.toml"
        file.write_text('[logging]\nlevel = "error"\n' + "".join(lines), encoding="utf-8")
        with local_daemon([self.bundle.path], "--config", str(file), *options) as daemon:
            yield daemon

    @contextmanager
    def serving_tenants(self, tenants: Sequence[str]) -> Iterator[tuple[LocalDaemon, Mapping[str, str]]]:
        """A daemon of several tenants, and the token of each."""
        made = {tenant: tokens.create("tenant", tenant, "", time.time(), None) for tenant in tenants}
        file = self.folder / "tokens.json"
        tokens.write(file, {entry.id: entry for _, entry in made.values()})
        with self.serving(security={"tokens": f'"{file}"'}) as daemon:
            yield daemon, {tenant: token for tenant, (token, _) in made.items()}


@contextmanager
def statistics(daemon: LocalDaemon, subject: Subject) -> Iterator[Callable[[], tuple[int, int]]]:
    """Samples answered and engine calls so far."""
    with connected(daemon.target, INFER.replace("ModelInfer", "ModelStatistics")) as rpc:
        asked = model_statistics_pb2.ModelStatisticsRequest(name=subject.model).SerializeToString()

        def counts() -> tuple[int, int]:
            found = model_statistics_pb2.ModelStatisticsResponse.FromString(rpc(asked)).model_stats[0]
            return found.inference_count, found.execution_count

        yield counts


def indexed(engine: Engine, arrays: Sequence[NDArray[Any]]) -> Callable[[bytes], Any]:
    """The engine behind the same call as a rpc: the payload says which array."""
    return lambda payload: engine.frozen(arrays[payload[0] % len(arrays)])
