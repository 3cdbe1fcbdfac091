"""TLS and client certificates on a real daemon, the addresses it refuses to bind, and certificates that change."""

from __future__ import annotations

import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from acclimate.runtime.client import AsyncClient, Client, ClientError, Tls
from tests.end_to_end.certificates import Authority, Pair, authority
from tests.end_to_end.daemons import Daemon, arguments, refused, running
from tests.end_to_end.tenants import issued
from tests.polling import until
from tests.runtime.digits import picture

BAD_CONFIG = 2
EVERYWHERE = {"ACCLIMATE_SERVER__HOST": "0.0.0.0"}  # noqa: S104 - what must be refused


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(ca: Authority) -> Pair:
    return ca.issue("server", "daemon")


def tls(pair: Pair, **more: object) -> dict[str, str]:
    settings = {"TLS_CERTIFICATE": pair.certificate, "TLS_KEY": pair.key} | more
    return {f"ACCLIMATE_SECURITY__{name}": str(value) for name, value in settings.items()}


def fetch(daemon: Daemon, path: str, context: ssl.SSLContext | None, token: str | None = None) -> tuple[int, str]:
    scheme = "http" if context is None else "https"
    url = f"{scheme}://127.0.0.1:{daemon.ready['http_port']}{path}"
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own daemon
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as reply:  # noqa: S310
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def local(daemon: Daemon) -> str:
    return f"127.0.0.1:{daemon.ready['grpc_port']}"


@pytest.fixture(scope="module")
def secured(bundle_path: Path, server: Pair) -> Iterator[Daemon]:
    with running(bundle_path, environment=tls(server) | EVERYWHERE) as daemon:
        yield daemon


def test_a_client_that_trusts_the_authority_is_served(secured: Daemon, ca: Authority) -> None:
    with Client(local(secured), tls=Tls(ca.certificate)) as client:
        assert client.predict("digits", picture(0, 2)).logits.shape == (2, 10)


@pytest.mark.parametrize("way", ["plain", "system authorities", "another authority", "another name"])
def test_others_do_not_get_as_far_as_a_request(secured: Daemon, ca: Authority, tmp_path: Path, way: str) -> None:
    chosen = {
        "plain": False,
        "system authorities": True,
        "another authority": Tls(authority(tmp_path, "other").certificate),
        "another name": Tls(ca.certificate, name="elsewhere.example"),
    }[way]
    with Client(local(secured), tls=chosen, timeout_seconds=5) as client, pytest.raises(ClientError) as caught:
        client.server_info()
    assert caught.value.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert caught.value.reason == ""


def test_metrics_and_health_are_https_then(secured: Daemon, ca: Authority) -> None:
    context = ssl.create_default_context(cafile=ca.certificate)
    assert fetch(secured, "/readyz", context) == (200, "ready\n")
    assert "acclimate_build_info" in fetch(secured, "/metrics", context)[1]
    with pytest.raises((urllib.error.URLError, OSError)):
        fetch(secured, "/healthz", None)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(secured, "/healthz", ssl.create_default_context())


def test_the_asyncio_client_and_the_command_line_speak_tls_too(secured: Daemon, ca: Authority) -> None:
    import asyncio

    async def scenario() -> int:
        async with AsyncClient(local(secured), tls=Tls(ca.certificate)) as client:
            return (await client.predict("digits", picture(0, 3))).logits.shape[0]

    assert asyncio.run(scenario()) == 3
    listed = refused("session", "--ca", str(ca.certificate), "list", "--target", local(secured), "--json")
    assert (listed.returncode, listed.stdout) == (0, "[]\n"), listed.stderr


def test_tritonclient_sends_tokens_over_tls_as_it_is(
    bundle_path: Path, ca: Authority, server: Pair, tmp_path: Path
) -> None:
    tokens = issued(tmp_path / "tokens.json")
    with running(bundle_path, environment=tls(server, TOKENS=tmp_path / "tokens.json")) as daemon:
        with triton.InferenceServerClient(local(daemon), ssl=True, root_certificates=str(ca.certificate)) as client:
            tensor = triton.InferInput("image", [2, 1, 28, 28], "UINT8")
            tensor.set_data_from_numpy(picture(0, 2))
            headers = {"authorization": f"Bearer {tokens['alice']}"}
            sequence = {"sequence_id": "tritons", "sequence_start": True}
            answer = client.infer("digits", [tensor], headers=headers, **sequence)
            assert answer.as_numpy("logits").shape == (2, 10)
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                client.infer("digits", [tensor])
            assert client.is_server_live()
        with Client(local(daemon), tls=Tls(ca.certificate), token=tokens["alice"]) as mine:
            assert [view.session_id for view in mine.list_sessions()] == ["tritons"]
        with Client(local(daemon), tls=Tls(ca.certificate), token=tokens["mallory"]) as other:
            assert list(other.list_sessions()) == []


def test_a_new_certificate_is_used_without_a_restart(bundle_path: Path, tmp_path: Path) -> None:
    first, second = authority(tmp_path, "first"), authority(tmp_path, "second")
    pair, other = first.issue("server", "daemon"), second.issue("other", "daemon")
    trusted = [Tls(first.certificate), Tls(second.certificate)]
    with running(bundle_path, environment=tls(pair)) as daemon:
        assert [reached(daemon, tls) for tls in trusted] == [True, False]
        pair.key.write_text("half a key", encoding="utf-8")
        assert reached(daemon, trusted[0]), "while the files are broken the last good certificate stays"
        pair.certificate.write_bytes(other.certificate.read_bytes())
        pair.key.write_bytes(other.key.read_bytes())
        until(lambda: reached(daemon, trusted[1]), "the daemon to show its new certificate")
        assert not reached(daemon, trusted[0])
        context = ssl.create_default_context(cafile=second.certificate)
        assert fetch(daemon, "/healthz", context) == (200, "ok\n")


def reached(daemon: Daemon, chosen: Tls) -> bool:
    with Client(local(daemon), tls=chosen, timeout_seconds=5) as client:
        try:
            client.server_info()
        except ClientError as error:
            assert error.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
            return False
        return True


@pytest.mark.parametrize("named", ["common_name", "san"])
def test_a_client_certificate_is_asked_for_and_names_the_tenant(
    bundle_path: Path, ca: Authority, server: Pair, tmp_path: Path, named: str
) -> None:
    tokens = issued(tmp_path / "tokens.json")
    environment = tls(
        server, TLS_CLIENT_CA=ca.certificate, TENANT_FROM_CERTIFICATE=named, TOKENS=tmp_path / "tokens.json"
    )
    alice = ca.issue(f"{named}-alice", "alice" if named == "common_name" else "-", "DNS:alice,DNS:other")
    bob = ca.issue(f"{named}-bob", "bob" if named == "common_name" else "-", "DNS:bob")
    stranger = authority(tmp_path, "stranger").issue("mallory", "alice", "DNS:alice")
    nameless = ca.issue(f"{named}-nameless", "not a name", "DNS:not*a*name")

    def client(pair: Pair | None, token: str | None = None) -> Client:
        certificate, key = (None, None) if pair is None else (pair.certificate, pair.key)
        return Client(local(daemon), token=token, tls=Tls(ca.certificate, certificate, key), timeout_seconds=5)

    with running(bundle_path, environment=environment) as daemon:
        with client(alice) as first, client(bob) as second:
            first.create_session("digits", "mine")
            assert [view.session_id for view in first.list_sessions()] == ["mine"]
            assert list(second.list_sessions()) == []
            with pytest.raises(ClientError, match="SESSION_NOT_FOUND"):
                second.get_session("digits", "mine")
            with second.watch() as events:
                first.create_session("digits", "unheard")
                second.create_session("digits", "heard")
                assert next(events).session_id == "heard"
        with client(bob, tokens["alice"]) as by_token:
            assert {view.session_id for view in by_token.list_sessions()} == {"mine", "unheard"}
        for pair in (None, stranger):
            with client(pair) as refused_one, pytest.raises(ClientError) as caught:
                refused_one.server_info()
            assert caught.value.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
        with client(nameless) as odd, pytest.raises(ClientError, match="CREDENTIAL_MALFORMED"):
            odd.server_info()


def test_metrics_off_loopback_want_an_operators_token(
    bundle_path: Path, ca: Authority, server: Pair, tmp_path: Path
) -> None:
    tokens = issued(tmp_path / "tokens.json")
    context = ssl.create_default_context(cafile=ca.certificate)
    environment = tls(server, TOKENS=tmp_path / "tokens.json") | EVERYWHERE
    with running(bundle_path, environment=environment) as daemon:
        assert fetch(daemon, "/metrics", context)[0] == 401
        assert fetch(daemon, "/metrics", context, "acc_0_0")[0] == 401
        assert fetch(daemon, "/metrics", context, tokens["alice"])[0] == 401
        for who in ("watcher", "root"):
            code, text = fetch(daemon, "/metrics", context, tokens[who])
            assert code == 200
        assert 'acclimate_auth_failures_total{reason="missing"} 1.0' in text
        assert [fetch(daemon, path, context)[0] for path in ("/healthz", "/readyz", "/")] == [200] * 3


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])  # noqa: S104 - what must be refused
def test_an_address_that_others_reach_needs_tls_or_a_word(bundle_path: Path, tmp_path: Path, host: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[server]\nhost = "{host}"\n', encoding="utf-8")
    ended = refused(*arguments(bundle_path, config=config))
    assert ended.returncode == BAD_CONFIG
    assert "--insecure" in ended.stderr
    assert "security.tls_certificate" in ended.stderr
    assert host in ended.stderr


def test_insecure_is_said_on_the_command_line(bundle_path: Path) -> None:
    with running(bundle_path, environment=EVERYWHERE, insecure=True) as daemon, Client(local(daemon)) as client:
        assert client.server_info().models == ("digits",)


def broken(ca: Authority, server: Pair, folder: Path) -> dict[str, tuple[dict[str, str], str]]:
    text, encrypted = folder / "text", folder / "encrypted.key"
    text.write_text("not PEM", encoding="utf-8")
    locked = ["openssl", "pkey", "-in", str(server.key), "-aes256", "-passout", "pass:secret", "-out", str(encrypted)]
    subprocess.run(locked, check=True, capture_output=True)
    other = ca.issue("another", "daemon")
    missing = folder / "missing.pem"
    return {
        "a missing certificate": (tls(Pair(missing, server.key)), "missing.pem: cannot be read"),
        "a missing key": (tls(Pair(server.certificate, missing)), "missing.pem: cannot be read"),
        "a key of another": (tls(Pair(server.certificate, other.key)), "the key does not belong to the certificate"),
        "a certificate that is text": (tls(Pair(text, server.key)), "holds no PEM"),
        "a key that is text": (tls(Pair(server.certificate, text)), "holds no PEM"),
        "an encrypted key": (tls(Pair(server.certificate, encrypted)), "the key is encrypted"),
        "an authority that is text": (tls(server, TLS_CLIENT_CA=text), "security.tls_client_ca"),
        "a certificate alone": ({"ACCLIMATE_SECURITY__TLS_CERTIFICATE": "x"}, "come together"),
        "an authority alone": ({"ACCLIMATE_SECURITY__TLS_CLIENT_CA": "x"}, "needs security.tls_certificate"),
        "names without an authority": (tls(server, TENANT_FROM_CERTIFICATE="san"), "needs security.tls_client_ca"),
        "missing tokens": ({"ACCLIMATE_SECURITY__TOKENS": str(missing)}, "missing.pem cannot be read"),
        "tokens that are text": ({"ACCLIMATE_SECURITY__TOKENS": str(text)}, "malformed"),
    }


def test_what_cannot_be_used_is_named_in_one_line(
    bundle_path: Path, ca: Authority, server: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, (environment, expected) in broken(ca, server, tmp_path).items():
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            ended = refused(*arguments(bundle_path))
        assert ended.returncode == BAD_CONFIG, (name, ended.stderr)
        assert expected in ended.stderr, name
        assert ended.stderr.splitlines()[-1].startswith("acclimate: ")
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
