"""A daemon with tokens: two tenants, an operator and an administrator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acclimate.runtime.client import Client
from acclimate.runtime.security import tokens
from benchmarks._rpcs import LANGUAGE
from tests.end_to_end.daemons import Daemon, running

CALLERS = {"alice": "tenant", "mallory": "tenant", "watcher": "operator", "root": "admin"}


@dataclass(frozen=True)
class Guarded:
    """The daemon, and a token for each of `CALLERS`."""

    daemon: Daemon
    file: Path
    tokens: dict[str, str]

    def client(self, caller: str, tenant: str | None = None) -> Client:
        """A client of one of `CALLERS`."""
        return Client(self.daemon.target, token=self.tokens[caller], tenant=tenant)

    def metadata(self, caller: str, tenant: str | None = None) -> tuple[tuple[str, str], ...]:
        """What that client sends with every rpc."""
        named = (("authorization", f"Bearer {self.tokens[caller]}"), ("acclimate-tenant", tenant))
        return tuple((key, value) for key, value in named if value)


def issued(file: Path) -> dict[str, str]:
    """Write a token file with a token for each of `CALLERS`."""
    made = {
        name: tokens.create(role, name if role == "tenant" else "", name, time.time(), None)
        for name, role in CALLERS.items()
    }
    tokens.write(file, {entry.id: entry for _, entry in made.values()})
    return {name: token for name, (token, _) in made.items()}


@contextmanager
def guarded(bundle: Path, folder: Path, **environment: str) -> Iterator[Guarded]:
    """A synchronous daemon that wants tokens; `environment` sets more, by section and key."""
    file = folder / "tokens.json"
    given = issued(file)
    settings = {"SECURITY__TOKENS": str(file), "REPOSITORY__REMOTE_CONTROL": "true"} | environment
    variables = {f"ACCLIMATE_{name}": value for name, value in settings.items()}
    with running(bundle, synchronous=True, environment=variables, language_model=LANGUAGE) as daemon:
        yield Guarded(daemon, file, given)
