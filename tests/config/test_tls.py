"""`link.tls`: files that are of no use are one mistake each, when the configuration is checked."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from arrayd.config.tls import TlsFileError, contexts

PASSPHRASE = b"not known here"
Spoil = Callable[[Path], object]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files that are right, by their keys."""
    ca = trustme.CA()
    issued = ca.issue_cert("primary")
    made = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key", "ca")}
    issued.cert_chain_pems[0].write_to_path(made["certificate"])
    issued.private_key_pem.write_to_path(made["key"])
    made["key"].chmod(0o600)
    ca.cert_pem.write_to_path(made["ca"])
    return made


def encrypt(file: Path) -> None:
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(PASSPHRASE)
    form = serialization.PrivateFormat.PKCS8
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def test_files_that_are_right(files: dict[str, Path]) -> None:
    for context in contexts(**files):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("key", "spoil", "expected"),
    [
        ("ca", Path.unlink, r"a file that can be read \(No such file or directory\)"),
        ("ca", become_a_folder, r"a file that can be read \(Is a directory\)"),
        ("ca", lambda file: file.write_text("nothing"), "a file with certificates of a CA, in PEM format"),
        ("certificate", Path.unlink, r"a file that can be read \(No such file or directory\)"),
        ("certificate", lambda file: file.write_text(""), "a file with this array's certificate, in PEM format"),
        ("key", Path.unlink, r"a file that can be read \(No such file or directory\)"),
        ("key", lambda file: file.chmod(0o640), r"its owner alone can read \(mode 0640 now\): chmod 600 "),
        ("key", lambda file: file.write_text("nothing"), "a file with the key of the certificate, in PEM format"),
        ("key", encrypt, "without a passphrase"),
        ("key", trustme.CA().issue_cert("other").private_key_pem.write_to_path, "a file with the key of the cert"),
    ],
)
def test_a_file_of_no_use(files: dict[str, Path], key: str, spoil: Spoil, expected: str) -> None:
    spoil(files[key])
    with pytest.raises(TlsFileError, match=expected) as told:
        contexts(**files)
    assert told.value.key == key
