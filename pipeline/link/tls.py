"""Who may be at the other end: TLS 1.3, and a certificate of the same authority on both sides.

A node's certificate names its hosts and is for servers only, a router's for clients only: neither can stand in for
the other.
"""

from __future__ import annotations

import ssl
from pathlib import Path


class CertificateError(Exception):
    """Certificates can't be used; the message names the setting and the file."""


def context_of(ca: Path, certificate: Path, key: Path, *, routes: bool) -> ssl.SSLContext:
    """Of a router or a node. Raises CertificateError."""
    return (router_context if routes else node_context)(ca, certificate, key)


def node_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises CertificateError."""
    return _context(ssl.PROTOCOL_TLS_SERVER, ca, certificate, key)


def router_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Checks that a node's certificate names the host that was asked for. Raises CertificateError."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, ca, certificate, key)


def _context(protocol: int, ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET  # there is one link to a node, and no session to take up again
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"pipeline.link.ca: {ca} is no certificate in PEM: {_why(error)}") from error
    try:
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        text = f"pipeline.link.certificate and .key: {certificate} and {key} do not go together: {_why(error)}"
        raise CertificateError(text) from error
    return context


def _why(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or "it can't be read"


def why_refused(error: Exception) -> str:
    """What a handshake failed of, for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS 1.3 with a certificate of the same authority: {error.reason or error}"
    return str(error) or type(error).__name__
