"""Who made a bundle: an Ed25519 signature (RFC 8032) over the hash of its manifest, which has that of every file.

`manifest.sig` lies beside the manifest: JSON with the signature and the public key that it was made for. The key in
it only says which trusted key to try; it proves nothing. Needs the package `cryptography`, the extra `sign`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acclimate.runtime.security.files import SecurityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_FILE = "manifest.sig"
ALGORITHM = "ed25519"
# Signed with the hash, so that a signature over something else can never be taken for one over a bundle.
PURPOSE = b"acclimate bundle manifest, sha256 "
MAX_SIGNATURE_BYTES = 4096
_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.S)


class SignatureError(SecurityError):
    """A key cannot be used, or a bundle is not signed by a trusted one; the message names the file and the fix."""


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Public keys whose signatures are believed, by fingerprint."""

    keys: dict[str, Ed25519PublicKey]

    def verify(self, folder: Path, manifest_sha256: str) -> str:
        """The fingerprint of the key that signed the manifest of this hash.

        Raises:
            SignatureError: there is no signature, it is malformed or wrong, or of a key that is not trusted.
        """
        from cryptography.exceptions import InvalidSignature

        path = folder / SIGNATURE_FILE
        named, signature = _read_signature(path)
        key = self.keys.get(named)
        if key is None:
            raise SignatureError(f"{path}: signed with key {named[:16]!r}, which is not among security.trusted_keys")
        try:
            key.verify(signature, PURPOSE + manifest_sha256.encode())
        except InvalidSignature:
            raise SignatureError(
                f"{path}: the signature is not of this manifest; the bundle was changed after it was signed: restore "
                "it, or sign it again with `acclimate bundle sign`"
            ) from None
        return named


def trusted(path: Path) -> TrustedKeys:
    """The public keys in a PEM file, one or more.

    Raises:
        SignatureError: the file cannot be read, holds no Ed25519 public key, or `cryptography` is not installed.
    """
    serialization, ed25519 = _library()
    try:
        blocks: Sequence[bytes] = _BLOCK.findall(path.read_bytes())
    except OSError as error:
        raise SignatureError(f"security.trusted_keys {path}: cannot be read ({error.strerror})") from error
    keys = {}
    for block in blocks:
        try:
            key = serialization.load_pem_public_key(block)
        except ValueError as error:
            raise SignatureError(f"security.trusted_keys {path}: holds a malformed key ({error})") from error
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise SignatureError(f"security.trusted_keys {path}: holds a key that is not Ed25519")
        keys[fingerprint(key)] = key
    if not keys:
        raise SignatureError(
            f"security.trusted_keys {path}: holds no public key; make one with `openssl pkey -in KEY -pubout`"
        )
    return TrustedKeys(keys)


def private_key(path: Path) -> Ed25519PrivateKey:
    """An Ed25519 private key from a PEM file without a password.

    Raises:
        SignatureError: it cannot be read or is no such key, or `cryptography` is not installed.
    """
    serialization, ed25519 = _library()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SignatureError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError) as error:
        raise SignatureError(
            f"{path}: no private key without a password ({error}); make one with "
            "`openssl genpkey -algorithm ed25519 -out KEY`"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SignatureError(f"{path}: the key is not Ed25519; make one with `openssl genpkey -algorithm ed25519`")
    own: Ed25519PrivateKey = key
    return own


def sign(folder: Path, manifest_sha256: str, key: Ed25519PrivateKey) -> str:
    """Write the signature of a bundle, and return the fingerprint of the key.

    Raises:
        SignatureError: it cannot be written.
    """
    named = fingerprint(key.public_key())
    signature = base64.b64encode(key.sign(PURPOSE + manifest_sha256.encode())).decode()
    document = {"algorithm": ALGORITHM, "key": named, "signature": signature}
    try:
        (folder / SIGNATURE_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SignatureError(f"{folder / SIGNATURE_FILE}: cannot be written ({error.strerror})") from error
    return named


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 in hexadecimal of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _read_signature(path: Path) -> tuple[str, bytes]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SIGNATURE_BYTES)
    except OSError as error:
        raise SignatureError(
            f"{path}: cannot be read ({error.strerror}); security.trusted_keys is set, so bundles have to be signed: "
            "`acclimate bundle sign`"
        ) from error
    try:
        document = json.loads(raw)
        if document["algorithm"] != ALGORITHM:
            raise ValueError(f"algorithm is {document['algorithm']!r}, not {ALGORITHM!r}")
        return str(document["key"]), base64.b64decode(document["signature"], validate=True)
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise SignatureError(f"{path}: malformed ({error}); sign the bundle again") from error


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise SignatureError("signatures need a package more; run: pip install 'acclimate[sign]'") from error
    return serialization, ed25519
