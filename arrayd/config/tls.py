"""Mutual TLS of the links, by the files that `link.tls` names: they are read to check them, and again to use them."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from arrayd.config.document import read_at_once
from arrayd.config.values import check_owners_alone


class TlsFileError(ValueError):
    """A file that is of no use; the text says what was expected, `key` whose it is."""

    def __init__(self, key: str, expected: str) -> None:
        super().__init__(expected)
        self.key = key


def contexts(certificate: Path, key: Path, ca: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS 1.3 that shows our certificate, and takes none but those of the CA: to dial, and to listen.

    Raises TlsFileError.
    """
    client, server = ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH
    return _context(certificate, key, ca, client), _context(certificate, key, ca, server)


def _context(certificate: Path, key: Path, ca: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    _check_regular("ca", ca)
    try:
        made = ssl.create_default_context(purpose, cafile=ca)
    except (OSError, ValueError):
        raise TlsFileError("ca", "a file with certificates of a CA, in PEM format") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    _check_regular("certificate", certificate)
    mode = _check_regular("key", key)
    try:
        check_owners_alone(key, mode)
    except ValueError as error:
        raise TlsFileError("key", str(error)) from None
    try:
        # Without a password of ours OpenSSL asks for one at the terminal, and waits.
        made.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
        except (OSError, ValueError):
            raise TlsFileError("certificate", "a file with this array's certificate, in PEM format") from None
        expected = "a file with the key of the certificate, in PEM format, without a passphrase"
        raise TlsFileError("key", expected) from None
    return made


def _check_regular(key: str, file: Path) -> int:
    """The mode of a regular file that can be read: anything else may keep who opens it waiting."""
    try:
        mode, _ = read_at_once(file, 0)
    except OSError as error:
        raise TlsFileError(key, f"a file that can be read ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise TlsFileError(key, "a regular file")
    return mode
