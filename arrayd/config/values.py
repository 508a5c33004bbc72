"""Single values of the configuration: text to sizes, addresses, names and secrets.

Every function takes what YAML gave, returns the typed value or raises ValueError with what was expected.
"""

import hmac
import ipaddress
import re
import stat
import unicodedata
from pathlib import Path
from typing import NamedTuple

from arrayd.config.document import read_at_once

SIZE_BYTES_MAX = 1 << 50
"""Of one volume: 1 PiB. The file system of the state directory will say no long before."""

COPY_RATE_MIN = 64 * 1024
"""Bytes a second: a copy that is slower than that has no end, and a limit below is meant to be another."""

SECRET_BYTES_MIN = 12
"""RFC 7143, 12.1.3: a CHAP secret has at least 96 bits where IPsec does not protect the connection."""
SECRET_BYTES_MAX = 128

ISCSI_NAME_BYTES_MAX = 223
"""RFC 7143, 4.2.7.1."""

CHAP_USER_BYTES_MAX = 255

_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_SIZE = re.compile(r"([0-9]{1,19}) ?([A-Za-z]*)")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9-]{1,63})*")
_IQN = re.compile(r"iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[^:.][^:]*(:.+)?")
_EUI = re.compile(r"eui\.[0-9a-f]{16}")
_NAA = re.compile(r"naa\.([0-9a-f]{16}|[0-9a-f]{32})")
_ARRAY_NAME = re.compile(r"[a-z0-9-]{1,32}")
_VOLUME_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_LUN = re.compile(r"0|[1-9][0-9]{0,4}")

LUN_MAX = 16383
"""SAM-5, 4.7.7.3: what flat space addressing holds in 14 bits."""


class Address(NamedTuple):
    """A TCP address; the port 0 means that the kernel chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Secret:
    """A CHAP secret and the file it came from. Nothing that prints it shows it."""

    __slots__ = ("file", "value")

    def __init__(self, file: Path, value: bytes) -> None:
        self.file = file
        self.value = value

    def __repr__(self) -> str:
        return f"Secret({str(self.file)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.value, other.value)

    def __hash__(self) -> int:
        return hash(self.value)


def size(value: object) -> int:
    """`1GiB`, `512 MiB`, `1000000000`: bytes, 1..SIZE_BYTES_MAX."""
    expected = "a size such as 1GiB or 512MiB, or a number of bytes"
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"{expected} (units: {', '.join(filter(None, _UNITS))})")
        number = int(match[1]) * _UNITS[match[2]]
    if not 0 < number <= SIZE_BYTES_MAX:
        raise ValueError(f"{expected}, at least one block and at most {SIZE_BYTES_MAX >> 40}TiB")
    return number


def copy_rate(value: object) -> int:
    """Bytes a second: a size, COPY_RATE_MIN at the least."""
    rate = size(value)
    if rate < COPY_RATE_MIN:
        raise ValueError(f"bytes a second, such as 50MiB: {COPY_RATE_MIN >> 10}KiB at the least")
    return rate


def listen_address(value: object) -> Address:
    """`127.0.0.1:3260`, `[::1]:0`: an IP address of this machine and a port."""
    expected = "an IP address and a port, such as 127.0.0.1:3260 or [::1]:3260 (port 0: the kernel chooses)"
    address = _address(value, expected, port_min=0)
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        raise ValueError(expected) from None
    return address


def advertised_address(value: object) -> Address:
    """`10.0.2.2:3260`, `[2001:db8::1]:3260`, `array.example.org:3260`: what SendTargets answers (RFC 7143, 13.8)."""
    expected = "an IP address or a host name, and a port, such as 10.0.2.2:3260"
    address = _address(value, expected, port_min=1)
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        if _HOST_NAME.fullmatch(address.host) is None or address.host.replace(".", "").isdigit():
            raise ValueError(expected) from None
    return address


def _address(value: object, expected: str, port_min: int) -> Address:
    if not isinstance(value, str):
        raise ValueError(expected)
    host, colon, port_text = value.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    if in_brackets:
        host = host[1:-1]
    decimal = port_text.isascii() and port_text.isdigit() and len(port_text) <= 5
    if not colon or not host or in_brackets != (":" in host) or not decimal:
        raise ValueError(expected)
    port = int(port_text)
    if not port_min <= port <= 65535:
        raise ValueError(expected)
    return Address(host, port)


def is_loopback(address: Address) -> bool:
    """Whether it is certain that this address is on this machine; a host name may mean anything."""
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def iscsi_name(value: object) -> str:
    """An iSCSI name (RFC 7143, 4.2.7), in the form that is compared: RFC 3722 folds case and applies NFKC."""
    expected = "an iSCSI name: iqn.YYYY-MM.reversed.domain:anything, eui.16-hex-digits or naa.16-or-32-hex-digits"
    if not isinstance(value, str):
        raise ValueError(expected)
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
    if len(name.encode("utf-8", "surrogatepass")) > ISCSI_NAME_BYTES_MAX:
        raise ValueError(f"{expected}, of at most {ISCSI_NAME_BYTES_MAX} bytes")
    if not any(form.fullmatch(name) for form in (_IQN, _EUI, _NAA)):
        raise ValueError(expected)
    bad = next((char for char in name if not _in_iscsi_name(char)), None)
    if bad is not None:
        raise ValueError(f"{expected}, of letters, digits, '-', '.' and ':'")
    return name


def _in_iscsi_name(char: str) -> bool:
    """RFC 3722, 6: no white space, control, private or unassigned characters; of ASCII's punctuation only `-.:`."""
    if char.isascii():
        return char.isalnum() or char in "-.:"
    return unicodedata.category(char)[0] in "LMN"


def array_name(value: object) -> str:
    """The array's name, part of its target's name."""
    if not isinstance(value, str) or _ARRAY_NAME.fullmatch(value) is None:
        raise ValueError("a name of 1 to 32 of a-z, 0-9 and '-'")
    return value


def volume_name(value: object) -> str:
    """A volume's name, part of its file's name."""
    if not isinstance(value, str) or _VOLUME_NAME.fullmatch(value) is None:
        raise ValueError("a name of 1 to 32 of a-z, 0-9, '-' and '_' that starts with a letter or a digit")
    return value


def serial(value: object) -> str:
    """The array's serial number: VPD page 80h and part of every designator in page 83h."""
    expected = "a string of 1 to 16 printable ASCII characters, no space at its ends"
    if isinstance(value, int):
        raise ValueError(f'{expected}: write it in quotes, "{value}"')
    if not isinstance(value, str) or not 1 <= len(value) <= 16 or not value.isascii() or not value.isprintable():
        raise ValueError(expected)
    if value != value.strip():
        raise ValueError(expected)
    return value


def lun(value: object) -> int:
    """A LUN, 0..LUN_MAX; a key of a mapping arrives as text."""
    if isinstance(value, str) and _LUN.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LUN_MAX:
        raise ValueError(f"a LUN, 0 to {LUN_MAX}")
    return value


def chap_user(value: object) -> str:
    """A CHAP name (CHAP_N)."""
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value.encode()) <= CHAP_USER_BYTES_MAX:
        raise ValueError(f"a name of 1 to {CHAP_USER_BYTES_MAX} printable bytes")
    return value


def path(value: object, base: Path) -> Path:
    """A path, relative ones from `base`; absolute, symbolic links followed as far as they lead."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("a path")
    try:
        return (base / value).resolve()
    except (OSError, RuntimeError):
        raise ValueError("a path that does not lead in a circle") from None


def check_owners_alone(file: Path, mode: int) -> None:
    """Raises ValueError for a file of this mode that others than its owner can read."""
    if mode & 0o077:
        raise ValueError(f"a file that its owner alone can read (mode {stat.S_IMODE(mode):04o} now): chmod 600 {file}")


def secret(value: object, base: Path) -> Secret:
    """The CHAP secret in the file of this name; the line end after it does not belong to it."""
    file = path(value, base)
    bounds = f"{SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes"
    try:
        mode, data = read_at_once(file, SECRET_BYTES_MAX + 3)
    except OSError as error:
        raise ValueError(f"a file with a secret of {bounds} ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"a file with a secret of {bounds} (this is not a regular file)")
    check_owners_alone(file, mode)
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not SECRET_BYTES_MIN <= len(data) <= SECRET_BYTES_MAX:
        raise ValueError(f"a file with a secret of {bounds} (RFC 7143, 12.1.3)")
    return Secret(file, data)
