"""Tokens: made once, kept as hashes, verified, expired, revoked; the file that holds them; the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.security import files, tokens
from acclimate.runtime.security.caller import Caller, Role
from acclimate.runtime.security.guard import Keyring
from tests.runtime.test_cli import failure, run

TOKEN, ENTRY = tokens.create("tenant", "alice", "camera", 1000.0, 60.0)
ENTRIES = {ENTRY.id: ENTRY}


def test_a_token_is_its_callers_until_it_expires() -> None:
    assert tokens.verify(TOKEN, ENTRIES, 1059.9) == Caller("alice", Role.TENANT, ENTRY.id)
    assert tokens.verify(TOKEN, ENTRIES, 1060.0) is None
    forever, entry = tokens.create("admin", "", "", 0.0, None)
    assert tokens.verify(forever, {entry.id: entry}, 1e12) == Caller("", Role.ADMIN, entry.id)


def test_what_is_kept_does_not_tell_the_token() -> None:
    secret = TOKEN.rpartition("_")[2]
    assert secret not in json.dumps([getattr(ENTRY, name) for name in ("id", "salt", "hash", "note")])
    again = replace(ENTRY, salt="00" * 16)
    assert tokens.verify(TOKEN, {ENTRY.id: again}, 1001.0) is None, "the salt is part of the hash"
    assert len({tokens.create("tenant", "a", "", 0.0, None)[1].hash for _ in range(50)}) == 50


@pytest.mark.parametrize("position", range(len(TOKEN)))
def test_every_character_counts(position: int) -> None:
    changed = TOKEN[:position] + ("0" if TOKEN[position] != "0" else "1") + TOKEN[position + 1 :]
    assert tokens.verify(changed, ENTRIES, 1001.0) is None


@given(st.text(max_size=200))
def test_no_text_is_a_token_by_chance_nor_an_error(text: str) -> None:
    for candidate in (text, TOKEN + text if text else TOKEN[:-1], f"{tokens.PREFIX}_{ENTRY.id}_{text}"):
        assert tokens.verify(candidate, ENTRIES, 1001.0) is None


@pytest.mark.parametrize(
    ("role", "tenant", "lifetime", "message"),
    [
        ("king", "a", None, "role is 'king'; use one of admin, tenant, operator"),
        ("tenant", "", None, "needs a tenant"),
        ("tenant", "a b", None, "tenant is 'a b'"),
        ("tenant", "-a", None, "starting with a letter"),
        ("admin", "a/b", None, "tenant is 'a/b'"),
        ("tenant", "a" * 65, None, "1 to 64"),
        ("tenant", "a", 0.0, "more than 0"),
        ("tenant", "a", float("nan"), "more than 0"),
    ],
)
def test_a_bad_token_is_not_made(role: str, tenant: str, lifetime: float | None, message: str) -> None:
    with pytest.raises(tokens.TokenError, match=message):
        tokens.create(role, tenant, "", 0.0, lifetime)


def test_the_file_is_its_owners_alone_and_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    tokens.write(path, ENTRIES)
    assert path.stat().st_mode & 0o777 == 0o600
    assert tokens.read(path) == ENTRIES
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(format=2),
        lambda d: d.pop("tokens"),
        lambda d: d["tokens"][0].pop("hash"),
        lambda d: d["tokens"][0].update(hash="zz"),
        lambda d: d["tokens"][0].update(salt=""),
        lambda d: d["tokens"][0].update(role="king"),
        lambda d: d["tokens"][0].update(tenant=""),
        lambda d: d["tokens"][0].update(tenant=7),
        lambda d: d["tokens"][0].update(expires_at="soon"),
        lambda d: d["tokens"][0].update(colour="red"),
        lambda d: d.update(tokens=[1]),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, damage) -> None:
    path = tmp_path / "tokens.json"
    tokens.write(path, ENTRIES)
    document = json.loads(path.read_text(encoding="utf-8"))
    damage(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(tokens.TokenError, match=r"tokens.json is malformed .*acclimate token create"):
        tokens.read(path)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    tokens.write(path, ENTRIES)
    path.chmod(0o620)
    with pytest.raises(tokens.TokenError, match="chmod go-w"):
        tokens.read(path)


def test_a_changed_file_counts_at_the_next_look_and_a_broken_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOOK_EVERY_SECONDS", 0.0)
    path = tmp_path / "tokens.json"
    tokens.write(path, ENTRIES)
    ring = Keyring(path, ManualClock(1001.0))
    assert ring.caller(TOKEN) is not None
    path.write_text("{", encoding="utf-8")
    assert ring.caller(TOKEN) is not None
    tokens.write(path, {})
    assert ring.caller(TOKEN) is None


def test_the_command_line_makes_lists_and_revokes(tmp_path: Path) -> None:
    where = ("--file", str(tmp_path / "tokens.json"))
    made = json.loads(run("token", "create", *where, "--tenant", "alice", "--note", "porch", "--json").stdout)
    plain = run("token", "create", *where, "--role", "operator", "--days", "1").stdout.strip()
    entries = tokens.read(tmp_path / "tokens.json")
    assert tokens.verify(made["token"], entries, made["created_at"]) == Caller("alice", Role.TENANT, made["id"])
    operator = tokens.verify(plain, entries, made["created_at"])
    assert operator is not None
    assert operator.role is Role.OPERATOR
    assert tokens.verify(plain, entries, made["created_at"] + 2 * 86_400) is None
    listed = run("token", "list", *where, "--json")
    assert [row["tenant"] for row in json.loads(listed.stdout)] == ["alice", ""]
    for secret in (made["token"][-64:], plain[-64:], entries[made["id"]].hash):
        assert secret not in listed.stdout
    assert "porch" in run("token", "list", *where).stdout
    assert run("token", "revoke", made["id"], *where).returncode == 0
    assert made["id"] not in tokens.read(tmp_path / "tokens.json")
    code, line = failure(run("token", "revoke", made["id"], *where))
    assert code == 1
    assert made["id"] in line
    code, line = failure(run("token", "create", *where, "--tenant", "a b"))
    assert code == 2
    assert "tenant is 'a b'" in line
    assert failure(run("token", "list", "--file", str(tmp_path / "none.json")))[0] == 2
