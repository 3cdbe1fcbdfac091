"""A record's bytes: every value comes back bit for bit, and not one bit of them may change unseen."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from acclimate.adapters.accuracy import Telemetry
from acclimate.runtime.store.base import Damaged, SessionRecord
from acclimate.runtime.store.codec import MAGIC, decode, encode

FLOATS = st.floats(allow_nan=False)
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
ARRAYS = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


def record(**changed: object) -> SessionRecord:
    plain = SessionRecord(
        model="digits",
        session_id="cam",
        bundle="b" * 64,
        recipe="tent",
        parameters={"lr": 0.1, "batch_rows": 8, "eager": True},
        state="adapted",
        version=7,
        created_at=1.5,
        last_used_at=2.5,
        recorded_at=3.5,
        budget_clock="one",
        budget_at=0.1,
        distance=0.3,
        drift=(0.0, 0.25),
        telemetry=Telemetry(0.1, 0.2, 0.3, 0.4),
        account={"requests": 3, "skipped": {"budget": 2}},
        fields={"theta": np.arange(4, dtype=np.float32), "steps": np.array(3)},
    )
    return replace(plain, **changed)


def same(one: SessionRecord, other: SessionRecord) -> None:
    for entry in fields(SessionRecord):
        if entry.name not in ("fields", "snapshots"):
            assert getattr(one, entry.name) == getattr(other, entry.name), entry.name
    assert one.fields.keys() == other.fields.keys()
    for name, array in one.fields.items():
        back = other.fields[name]
        assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(
    st.dictionaries(NAMES, ARRAYS, max_size=4),
    st.tuples(FLOATS, FLOATS, FLOATS),
    st.dictionaries(NAMES, st.one_of(st.booleans(), st.integers(), FLOATS), max_size=3),
    st.one_of(st.none(), FLOATS),
)
def test_a_record_returns_bit_for_bit(arrays: dict, numbers: tuple, parameters: dict, ttl: float | None) -> None:
    given_one = record(
        fields=arrays, drift=numbers, distance=numbers[0], budget_at=numbers[1], parameters=parameters, ttl_seconds=ttl
    )
    back = decode(encode(given_one))
    same(given_one, back)
    assert {name: type(value) for name, value in parameters.items()} == {
        name: type(value) for name, value in back.parameters.items()
    }
    assert encode(back) == encode(given_one)


def test_snapshots_travel_with_their_session() -> None:
    held = {
        "before": record(version=3, fields={"theta": np.full(4, 9, np.float32)}),
        "empty": record(version=0, fields={}),
    }
    given_one = record(snapshots=held)
    back = decode(encode(given_one))
    assert list(back.snapshots) == ["before", "empty"]
    for name, snapshot in held.items():
        same(snapshot, back.snapshots[name])
    assert back.fields.keys() == given_one.fields.keys()
    assert encode(back) == encode(given_one)


def test_arrays_that_do_not_lie_in_order_are_stored_as_they_read() -> None:
    turned = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(decode(encode(record(fields={"turned": turned}))).fields["turned"], turned)


def test_every_changed_bit_and_every_cut_is_seen() -> None:
    content = encode(record())
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        with pytest.raises(Damaged, match="checksum"):
            decode(bytes(changed))
    for length in (0, 1, 31, 32, 44, len(content) - 1):
        with pytest.raises(Damaged, match="checksum"):
            decode(content[:length])
    with pytest.raises(Damaged, match="checksum"):
        decode(content + b"\0")


def signed(body: bytes) -> bytes:
    return body + hashlib.blake2b(body, digest_size=32).digest()


def headed(header: bytes, payload: bytes = b"") -> bytes:
    return signed(MAGIC + struct.pack("<I", len(header)) + header + payload)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (signed(b"ACCLREC\x09" + bytes(60)), "another version"),
        (headed(b"{"), "not JSON"),
        (headed(b"[]"), "not a JSON object"),
        (headed(b"{}"), "no session record"),
        (headed(b"{}", b"x" * 100), "no session record"),
        (signed(MAGIC + struct.pack("<I", 2**31) + b"{}"), "no session record"),
    ],
)
def test_what_is_signed_and_no_record_is_refused_all_the_same(content: bytes, complaint: str) -> None:
    with pytest.raises(Damaged, match=complaint):
        decode(content)


def test_a_reader_leaves_alone_what_it_does_not_know() -> None:
    content = encode(record())
    header = content[12 : 12 + struct.unpack_from("<I", content, 8)[0]]
    rest = content[12 + len(header) : -32]
    same(decode(headed(b'{"added_later":1,' + header[1:], rest)), record())
