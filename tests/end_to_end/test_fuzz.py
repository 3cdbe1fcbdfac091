"""Thousands of mutated messages on the wire at every rpc: no internal error, no dead daemon, no session touched.

`python -m benchmarks.fuzz --messages 100000` sends more, as one tenant at another.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.runtime.client import Client
from acclimate.runtime.types import SessionView
from benchmarks import fuzz
from benchmarks._mutations import mutated
from benchmarks._rpcs import ask, messages, methods, richer
from tests.end_to_end.daemons import Daemon
from tests.end_to_end.wire import future, twins

RPCS = methods()
# Messages about a session that the mutations may open, change and close at will.
GOOD = [*messages("ghost").items(), *richer("ghost")]


@pytest.fixture(scope="module")
def channel(daemon: Daemon) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(daemon.target) as opened:
        yield opened


@pytest.fixture(scope="module")
def bystander(daemon: Daemon) -> Iterator[SessionView]:
    """A session that nobody writes to, as it was before the storm."""
    with Client(daemon.target) as client:
        twins(client, "bystander")
        yield client.get_session("digits", "bystander")


def test_there_is_a_message_for_every_rpc() -> None:
    assert {method for method, _ in GOOD} == set(RPCS)


@settings(max_examples=2000)
@given(st.sampled_from(GOOD), st.randoms(use_true_random=False))
def test_no_mutation_of_a_good_message_is_an_internal_error(
    channel: grpc.Channel, bystander: SessionView, good: tuple[str, object], source: random.Random
) -> None:
    method, message = good
    payload = mutated(source, message.SerializeToString(), RPCS[method])  # type: ignore[attr-defined]
    assert not fuzz.defective(ask(channel, method, payload, RPCS[method]))


@settings(max_examples=800)
@given(st.sampled_from(sorted(RPCS)), st.binary(max_size=300))
def test_no_random_bytes_are_an_internal_error(
    channel: grpc.Channel, bystander: SessionView, method: str, payload: bytes
) -> None:
    assert not fuzz.defective(ask(channel, method, payload, RPCS[method]))


def test_the_daemon_lives_on_and_the_bystander_is_as_it_was(
    daemon: Daemon, client: Client, bystander: SessionView
) -> None:
    assert daemon.process.poll() is None
    assert client.get_session("digits", "bystander") == bystander
    twins(client, "born-after-the-storm")
    assert future(client, "bystander") == future(client, "born-after-the-storm")


def test_one_tenants_mutations_leave_anothers_session_alone(bundle_path) -> None:
    with fuzz.arena(bundle_path) as ring:
        report = fuzz.storm(ring, 1000, random.Random(7))  # noqa: S311 - not a secret
    for name in ("defects", "refusals_with_effect", "victim_changes"):
        assert report.figures[name] == 0, name
    assert report.figures["refusals_compared"] > 10
    seen = {code for row in report.rows for code, count in row.items() if count}
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= seen


def test_the_storm_sees_what_it_looks_for(bundle_path) -> None:
    """A session that was written to is a change, or the test above could not fail."""
    with fuzz.arena(bundle_path) as ring:
        fuzz._adapted(ring.victim, fuzz.VICTIM)
        before = fuzz._state(ring.victim, fuzz.VICTIM)
        assert fuzz._changes(before, fuzz._state(ring.victim, fuzz.VICTIM)) == 0
        ring.victim.predict("digits", fuzz._images(1), parameters={"sequence_id": fuzz.VICTIM})
        assert fuzz._changes(before, fuzz._state(ring.victim, fuzz.VICTIM)) > 0
