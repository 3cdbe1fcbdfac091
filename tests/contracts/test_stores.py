"""What every store promises, one table over all of them; two daemons share each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from acclimate.runtime.store.base import (
    HEADER_BYTES,
    REMEMBERED,
    Batch,
    Key,
    OwnedElsewhere,
    Reply,
    Store,
    Usage,
    Write,
)
from acclimate.runtime.store.codec import encode
from acclimate.runtime.store.memory import MemoryStore, Shelf
from acclimate.runtime.store.sqlite import SqliteStore
from tests.runtime.test_codec import record, same

ONE, TWO = ("", "digits", "one"), ("", "digits", "two")


@dataclass(frozen=True)
class Place:
    """Where stores of one kind meet: `join` opens one more, `kill` ends one as kill -9 would."""

    join: Callable[[], Store]
    kill: Callable[[Any], None]


def killed(store: SqliteStore) -> None:
    """Drop the lock and the connection, let go of nothing."""
    store._owners.close()
    store._drop()


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    opened: list[Store] = []
    shelf = Shelf()

    def join() -> Store:
        opened.append(MemoryStore(shelf) if request.param == "memory" else SqliteStore(tmp_path / "sessions.db"))
        return opened[-1]

    yield Place(join, MemoryStore.die if request.param == "memory" else killed)
    for store in opened:
        store.close()


def new(key: Key = ONE, epoch: int = 0, expires_at: float | None = None, **changed: object) -> Write:
    return Write(record(tenant=key[0], model=key[1], session_id=key[2], **changed), epoch, expires_at)


def claimed(store: Store, key: Key = ONE, now: float = 0.0, **options: Any) -> Any:
    return store.claim(key, now, lambda found: found, **options)


def put(store: Store, *writes: Write) -> None:
    written = store.write(Batch(writes=writes))
    assert written.fenced == ()
    assert written.bytes == sum(len(encode(write.record)) for write in writes)


def test_what_was_written_is_there_for_whoever_comes_next(place: Place) -> None:
    store = place.join()
    put(store, new(), new(TWO, version=9))
    store.close()
    after = place.join()
    found, epoch = claimed(after)
    same(found, new().record)
    assert epoch == 2
    assert (after.count(), after.size() > 0) == (2, True)
    assert claimed(after, ("", "digits", "none")) is None
    assert [after.holds(key) for key in (ONE, ("", "digits", "none"), ("other", "digits", "one"))] == [
        True,
        False,
        False,
    ]


def test_a_write_needs_the_epoch_it_is_owned_under(place: Place) -> None:
    store = place.join()
    put(store, new())
    put(store, new(epoch=1, version=8))
    for wrong in (2, 7, 0):
        assert store.write(Batch(writes=[new(epoch=wrong, version=99), new(("", "digits", f"x{wrong}"))])).fenced == (
            ONE,
        )
    (one, *others) = store.page(None, None, None, 10, 0.0)
    assert one.record is not None
    assert one.record.version == 8
    assert len(others) == 3, "what shares a transaction with a fenced write is written"


def test_a_living_owner_keeps_its_sessions_and_a_dead_one_loses_them(place: Place) -> None:
    first, second = place.join(), place.join()
    assert first.owner != second.owner
    put(first, new())
    with pytest.raises(OwnedElsewhere) as refused:
        claimed(second)
    assert refused.value.owner == first.owner
    with pytest.raises(OwnedElsewhere):
        second.remove(ONE)
    place.kill(first)
    assert claimed(second)[1] == 2
    assert second.page(None, None, None, 1, 0.0)[0].owner == second.owner


def test_who_was_fenced_out_writes_and_deletes_nothing_any_more(place: Place) -> None:
    first, second = place.join(), place.join()
    put(first, new())
    assert claimed(second, take_over=True)[1] == 2
    put(second, new(epoch=2, version=50))
    assert first.write(Batch(writes=[new(epoch=1, version=99)])).fenced == (ONE,)
    first.write(Batch(deleted={ONE: 1}, released={ONE: 1}))
    assert first.write(Batch(writes=[new(version=99)])).fenced == (ONE,), "a session of this name exists"
    stored = second.page(None, None, None, 1, 0.0)[0]
    assert stored.record is not None
    assert (stored.owner, stored.epoch, stored.record.version) == (second.owner, 2, 50)


def test_what_is_let_go_of_is_anybodys_and_the_epoch_goes_on(place: Place) -> None:
    first, second = place.join(), place.join()
    put(first, new())
    first.write(Batch(released={ONE: 1}))
    assert claimed(second)[1] == 2
    second.write(Batch(writes=[new(epoch=2)], released={ONE: 2}))
    assert claimed(first)[1] == 3
    assert first.write(Batch(writes=[new(epoch=1)])).fenced == (ONE,)


def test_who_let_go_and_took_again_keeps_it_whatever_comes_late(place: Place) -> None:
    store = place.join()
    put(store, new())
    assert claimed(store)[1] == 2
    store.write(Batch(released={ONE: 1}, deleted={ONE: 1}))
    (kept,) = store.page(None, None, None, 9, 0.0)
    assert (kept.owner, kept.epoch) == (store.owner, 2)


def test_a_claim_that_is_not_accepted_changes_nothing(place: Place) -> None:
    first, second = place.join(), place.join()
    put(first, new())
    first.write(Batch(released={ONE: 1}))

    def refuse(found: object) -> None:
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        second.claim(ONE, 0.0, refuse)
    assert [(s.owner, s.epoch) for s in first.page(None, None, None, 1, 0.0)] == [("", 1)]


def test_deleting(place: Place) -> None:
    store = place.join()
    put(store, new(), new(TWO))
    store.write(Batch(deleted={ONE: 1, TWO: 9}))
    assert [stored.key for stored in store.page(None, None, None, 9, 0.0)] == [TWO]
    store.write(Batch(deleted={TWO: 1}, writes=[new(TWO, version=3)]))
    assert claimed(store, TWO)[0].version == 3, "deleted and created again in one batch"
    assert [store.remove(TWO), store.remove(TWO)] == [new().record.state_bytes, None]


def test_snapshots_come_and_go_with_their_session(place: Place) -> None:
    store = place.join()
    first, second = (record(version=n, attributes={"stamp": str(n)}) for n in (1, 2))
    store.write(Batch(writes=[new(snapshots={"a": first, "b": second})]))
    store.write(Batch(writes=[new(epoch=1, version=8, snapshots={"a": first, "c": second})]))
    found, epoch = claimed(store)
    assert {name: held.version for name, held in found.snapshots.items()} == {"a": 1, "c": 2}
    # The same id, taken again.
    store.write(Batch(writes=[new(epoch=epoch, snapshots={"a": second})]))
    assert {n: s.version for n, s in store.page(None, None, None, 1, 0.0)[0].record.snapshots.items()} == {"a": 2}  # type: ignore[union-attr]
    store.remove(ONE)
    store.write(Batch(writes=[new()]))
    assert not claimed(store)[0].snapshots


def test_what_each_tenant_has(place: Place) -> None:
    store = place.join()
    assert store.usage() == {}
    held = new(("t", "digits", "one"), snapshots={"s": record()})
    put(store, new(), new(TWO), new(("t", "other", "one")))
    store.write(Batch(writes=[held]))
    size = new().record.state_bytes
    assert store.usage() == {"": Usage(2, 2 * size), "t": Usage(2, 3 * size + HEADER_BYTES)}
    store.write(Batch(deleted={ONE: 1}, released={TWO: 1}))
    assert store.usage()[""] == Usage(1, size), "who lets go of a session has it stored"


def test_the_latest_replies_are_kept_in_their_order(place: Place) -> None:
    def reply(number: int, text: bytes = b"") -> Reply:
        return Reply("t", "CreateSessionRequest", "models/m", str(number), b"digest", text, ("t", "m", "s"))

    store = place.join()
    store.write(Batch(replies=[reply(n) for n in range(5)]))
    store.write(Batch(replies=[reply(2, b"again")]))
    assert [(kept.request_id, kept.reply) for kept in store.replies()][-2:] == [("4", b""), ("2", b"again")]
    assert store.replies()[0] == reply(0)
    store.write(Batch(replies=[reply(n) for n in range(10, 10 + REMEMBERED)]))
    store.close()
    kept = place.join().replies()
    assert [one.request_id for one in kept] == [str(n) for n in range(10, 10 + REMEMBERED)]


def test_bundles_are_described_to_who_asks(place: Place) -> None:
    store = place.join()
    store.write(Batch(bundles={"d": "what it is"}, writes=[new()]))
    assert (store.bundle("d"), store.bundle("e")) == ("what it is", None)
    assert store.claim(ONE, 0.0, lambda _: store.bundle("d")) == ("what it is", 2), "from within a claim"


def test_pages_follow_each_other_in_order(place: Place) -> None:
    store = place.join()
    names = ("-", "0", "A", "B", "a", "aa")
    keys = [(tenant, model, name) for tenant in ("", "t") for model in ("a", "b") for name in names]
    put(store, *(new(key) for key in reversed(keys)))
    seen: list[Key] = []
    while page := store.page(None, None, seen[-1] if seen else None, 5, 0.0):
        seen += [stored.key for stored in page]
    assert seen == sorted(keys)
    assert [stored.key for stored in store.page("", "b", ("", "a", "aa"), 2, 0.0)] == sorted(keys)[6:8]
    assert [stored.key for stored in store.page("t", None, None, 99, 0.0)] == sorted(keys)[12:]
    assert store.page("t", "c", None, 5, 0.0) == store.page("u", None, None, 5, 0.0) == []


def test_what_has_expired_is_as_good_as_deleted(place: Place) -> None:
    first, second = place.join(), place.join()
    put(first, new(expires_at=10.0), new(TWO, expires_at=30.0), new(("", "digits", "kept")))
    assert claimed(first, now=10.0) is None
    assert [stored.key[2] for stored in first.page(None, None, None, 9, 10.0)] == ["kept", "two"]
    assert second.expire(99.0, 9) == {}, "a living owner deletes its own"
    first.close()
    assert second.expire(9.0, 9) == {}
    assert second.expire(10.0, 9) == {ONE: new().record.state_bytes}
    assert second.holds(TWO), "its name is taken until it is cleared away"
    assert list(second.expire(30.0, 9)) == [TWO]
    assert not second.holds(TWO)
    put(second, new(TWO))
    assert second.count() == 2


def test_closing_twice_is_harmless(place: Place) -> None:
    store = place.join()
    store.close()
    store.close()
