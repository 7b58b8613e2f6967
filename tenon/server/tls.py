"""TLS: a certificate that can change while the server runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from tenon.errors import ConfigError
from tenon.server.reload import Watched

log = logging.getLogger("tenon.server")


class Certificate:
    """What the server shows its clients and, with `client_ca`, asks of them. Raises ConfigError.

    `context` is for good: a chain and key that are read again hold for the connections that come next.
    `client_ca` is read once, for a context can learn to trust an authority but not to distrust it.
    """

    def __init__(self, chain: Path, key: Path | None = None, client_ca: Path | None = None) -> None:
        self._chain, self._key = chain, key
        self._used = False
        self.asks_clients = client_ca is not None
        self.context = _new_context()
        if client_ca is not None:
            _trust(self.context, client_ca)
        self.watched = Watched([path for path in (chain, key) if path], self._read)

    def _read(self) -> None:
        self._load(_new_context())  # a pair that does not belong together must not spoil the one in use
        self._load(self.context)
        if self._used:
            log.info("the certificate in %s is used from now on", self._chain)
        self._used = True

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # An encrypted key would have OpenSSL ask for its password on the terminal.
            context.load_cert_chain(self._chain, self._key, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            if self._key is None and isinstance(error, ssl.SSLError) and _has_no_key(self._chain):
                raise ConfigError(f"there is no key in {self._chain}: name its file with --tls-key") from None
            pair = " and ".join(str(path) for path in (self._chain, self._key) if path)
            raise ConfigError(f"cannot use the certificate and key in {pair}: {_reason(error)}") from None


def _trust(context: ssl.SSLContext, client_ca: Path) -> None:
    """Ask clients for a certificate that one of these authorities has signed."""
    try:
        context.load_verify_locations(client_ca)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"cannot use the certificates in {client_ca}: {_reason(error)}") from None
    context.verify_mode = ssl.CERT_REQUIRED


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _has_no_key(chain: Path) -> bool:
    text = chain.read_bytes()
    return b"-----BEGIN CERTIFICATE-----" in text and b"PRIVATE KEY-----" not in text


def _no_password() -> str:
    raise ValueError("the key is encrypted; decrypt it first (openssl pkey -in KEY -out PLAIN)")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
