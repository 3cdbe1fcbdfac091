"""An authority and certificates of one's own, made with `openssl` in a temporary folder."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CI


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Signs certificates; `certificate` is what others trust."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        """Its own certificate."""
        return self.folder / f"{self.name}.pem"

    def issue(self, file: str, common_name: str, names: str = "IP:127.0.0.1,DNS:localhost", days: int = 2) -> Pair:
        """A certificate for `common_name` and the alternative `names`."""
        pair = Pair(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        request, extensions = self.folder / f"{file}.csr", self.folder / f"{file}.ext"
        extensions.write_text(f"subjectAltName={names}\n", encoding="utf-8")
        _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
                 f"/CN={common_name}", "-keyout", str(pair.key), "-out", str(request))  # fmt: skip
        _openssl("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey",
                 str(self.folder / f"{self.name}.key"), "-CAcreateserial", "-days", str(days), "-extfile",
                 str(extensions), "-out", str(pair.certificate))  # fmt: skip
        return pair


def authority(folder: Path, name: str = "ca") -> Authority:
    """A new authority; without `openssl` the test is skipped, or fails in continuous integration."""
    if shutil.which("openssl") is None:
        reason = "no openssl on the path"
        pytest.fail(reason) if CI else pytest.skip(reason)
    made = Authority(folder, name)
    _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-keyout", str(folder / f"{name}.key"), "-out", str(made.certificate))  # fmt: skip
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True)
