"""Signed bundles: signing, verifying, and a daemon that runs nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pytest

from acclimate.adapters.manifest import MANIFEST_FILE
from acclimate.runtime.bundle import BundleError, read_bundle
from acclimate.runtime.config import Config
from acclimate.runtime.security import signatures
from acclimate.runtime.security.signatures import SIGNATURE_FILE
from acclimate.runtime.wiring import load_engine
from tests.conftest import CI
from tests.end_to_end.daemons import arguments, refused, running
from tests.hostile.bundles import copied, edit_manifest
from tests.runtime.test_cli import failure, run

BAD_BUNDLE, BAD_CONFIG = 5, 2
INSTALLED = importlib.util.find_spec("cryptography") is not None

needs_cryptography = pytest.mark.skipif(not INSTALLED and not CI, reason="no cryptography; the extra `sign` has it")


def keys(folder: Path, name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
    """Private and public key, PEM files."""
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def trusting(public: Path) -> Config:
    return Config(security={"trusted_keys": str(public)})


@pytest.fixture
def signed(bundle_path: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A signed bundle, the private key, the public key."""
    bundle, (private, public) = copied(bundle_path, tmp_path / "bundle"), keys(tmp_path, "maker")
    result = run("bundle", "sign", str(bundle), "--key", str(private), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["manifest_sha256"] == read_bundle(bundle).manifest_sha256
    return bundle, private, public


@needs_cryptography
def test_a_signed_bundle_is_verified_and_served(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bundle, _, public = signed
    both = tmp_path / "trusted.pem"
    both.write_bytes(keys(tmp_path, "other")[1].read_bytes() + public.read_bytes())
    assert run("bundle", "verify", str(bundle), "--keys", str(both)).returncode == 0
    with running(bundle, environment={"ACCLIMATE_SECURITY__TRUSTED_KEYS": str(both)}) as daemon:
        assert daemon.ready["models"] == ["digits"]


def damages() -> dict[str, tuple[str, object]]:
    def resign(bundle: Path, **changes: object) -> None:
        path = bundle / SIGNATURE_FILE
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    def flipped(bundle: Path) -> None:
        text = json.loads((bundle / SIGNATURE_FILE).read_text(encoding="utf-8"))["signature"]
        resign(bundle, signature=("B" if text[0] == "A" else "A") + text[1:])

    return {
        "no signature": ("have to be signed", lambda b: (b / SIGNATURE_FILE).unlink()),
        "a manifest that says something else": (
            "changed after it was signed",
            lambda b: edit_manifest(b, lambda document: document.update(version="9")),
        ),
        "a flipped bit": ("not of this manifest", flipped),
        "no JSON": ("malformed", lambda b: (b / SIGNATURE_FILE).write_text("x", encoding="utf-8")),
        "another algorithm": ("algorithm is 'none'", lambda b: resign(b, algorithm="none")),
        "a key that is not trusted": ("not among security.trusted_keys", lambda b: resign(b, key="00" * 32)),
        "a signature that is no base64": ("malformed", lambda b: resign(b, signature="?")),
        "an empty signature": ("not of this manifest", lambda b: resign(b, signature="")),
    }


@needs_cryptography
@pytest.mark.parametrize("case", damages())
def test_anything_else_is_refused_before_it_runs(signed: tuple[Path, Path, Path], case: str) -> None:
    bundle, _, public = signed
    expected, damage = damages()[case]
    damage(bundle)  # type: ignore[operator]
    with pytest.raises(BundleError, match=expected):
        load_engine(read_bundle(bundle), trusting(public))
    load_engine(read_bundle(bundle), Config()).close()


@needs_cryptography
def test_the_daemon_does_not_start_on_an_unsigned_bundle(bundle_path: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    keys(tmp_path, "maker")
    config.write_text('[security]\ntrusted_keys = "maker.pub"\n', encoding="utf-8")
    ended = refused(*arguments(bundle_path, config=config))
    assert ended.returncode == BAD_BUNDLE
    assert "acclimate bundle sign" in ended.stderr
    assert run("bundle", "verify", str(bundle_path), "--keys", str(tmp_path / "maker.pub")).returncode == BAD_BUNDLE


@needs_cryptography
def test_a_signature_of_one_bundle_is_none_of_another(signed: tuple[Path, Path, Path], bundle_path: Path) -> None:
    bundle, private, public = signed
    other = copied(bundle_path, bundle.parent / "other")
    edit_manifest(other, lambda document: document.update(name="other"))
    (other / SIGNATURE_FILE).write_bytes((bundle / SIGNATURE_FILE).read_bytes())
    with pytest.raises(BundleError, match="changed after it was signed"):
        load_engine(read_bundle(other), trusting(public))
    signatures.sign(other, read_bundle(other).manifest_sha256, signatures.private_key(private))
    load_engine(read_bundle(other), trusting(public)).close()


@needs_cryptography
def test_keys_that_cannot_be_used_are_named(bundle_path: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no key", encoding="utf-8")
    rsa_private, rsa_public = keys(tmp_path, "rsa", "rsa")
    for path, expected in ((text, "holds no public key"), (rsa_public, "not Ed25519"), (tmp_path / "no", "cannot be")):
        with pytest.raises(signatures.SignatureError, match=expected):
            signatures.trusted(path)
    for path, expected in ((text, "no private key"), (rsa_private, "not Ed25519"), (tmp_path / "no", "cannot be read")):
        code, line = failure(run("bundle", "sign", str(bundle_path), "--key", str(path)))
        assert code == BAD_CONFIG
        assert expected in line


def test_without_the_package_its_name_is_said(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['cryptography'] = None\n", encoding="utf-8")
    key = tmp_path / "key.pem"
    key.write_text("", encoding="utf-8")
    code, line = failure(run("bundle", "sign", str(bundle_path), "--key", str(key), PYTHONPATH=with_path(tmp_path)))
    assert code == BAD_CONFIG
    assert "pip install 'acclimate[sign]'" in line
    assert not (bundle_path / MANIFEST_FILE).with_name(SIGNATURE_FILE).exists()


def with_path(folder: Path) -> str:
    return os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH", "")) if part)
