"""TLS for the gRPC port, with a certificate that is read again when its files change."""

from __future__ import annotations

from typing import Any

import grpc

from acclimate.runtime.security import certificates
from acclimate.runtime.security.certificates import Reloading, TlsFiles


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that each new connection gets the latest certificate from.

    With an authority for clients, who shows no certificate of its own cannot connect.

    Raises:
        CertificateError: the files cannot be used now. Should they break later, the last good ones stay.
    """
    source = Reloading(files, _configuration)
    # The stubs forget that None means no change.
    renewed: Any = source.renewed
    return grpc.dynamic_ssl_server_credentials(
        source.latest, renewed, require_client_authentication=files.client_ca is not None
    )


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    pem = certificates.read(files)
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.client_ca)
