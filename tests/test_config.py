"""The configuration: what a good file becomes, and what is said about every mistake in a bad one."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from arrayd.config.document import MAX_FILE_BYTES
from arrayd.config.load import load
from arrayd.config.mistakes import ConfigError
from arrayd.config.schema import Config
from arrayd.config.values import Address

GOOD = """
array: {name: primary, serial: "410001"}
state_dir: state/primary
iscsi:
  listen: ["127.0.0.1:3260", "[::1]:0"]
  advertise: ["10.0.2.2:3260", "array.example.org:860"]
  target: iqn.2026-11.io.arrayd:primary
  poll_us: 0
  discovery_chap:
    chap: {user: finder, secret_file: host1.secret}
  initiators:
    - name: iqn.1993-08.org.debian:01:host1
      chap: {user: host1, secret_file: host1.secret}
      mutual_chap: {user: primary, secret_file: primary.secret}
      luns: [0, 1]
    - {name: eui.02004567A425678D}
volumes:
  data: {size: 1GiB}
  log: {size: 8 MiB, block_size: 4096, write_cache: false, read_only: true, removable: true, thin: false, path: log.img}
luns:
  "0": {volume: data}
  1: {volume: log}
"""

SMALL = 'array: {name: a, serial: "1"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two secrets, such as GOOD needs."""
    for name, secret in (("host1", b"host1-secret-0"), ("primary", b"primary-secret\r\n")):
        file = tmp_path / f"{name}.secret"
        file.write_bytes(secret)
        file.chmod(0o600)
    return tmp_path


def load_text(folder: Path, text: str) -> Config:
    """What a file with this text becomes."""
    file = folder / "array.yaml"
    file.write_text(text)
    return load(file)


def mistakes_in(folder: Path, text: str) -> list[str]:
    """What is said about a file with this text, without the file's name, which every line has to begin with."""
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text)
    prefix = f"{folder / 'array.yaml'}: "
    assert all(line.startswith(prefix) and "\n" not in line and ": expected " in line for line in caught.value.lines)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return [line.removeprefix(prefix) for line in caught.value.lines]


def test_a_whole_file(folder: Path) -> None:
    config = load_text(folder, GOOD)
    assert (config.array.name, config.array.serial) == ("primary", "410001")
    assert config.state_dir == folder / "state/primary"
    assert config.iscsi.listen == (("127.0.0.1", 3260), ("::1", 0))
    assert config.iscsi.advertise == (("10.0.2.2", 3260), ("array.example.org", 860))
    assert config.iscsi.poll_us == 0
    initiators = config.iscsi.initiators
    assert initiators is not None
    assert initiators[0].luns == (0, 1)
    assert initiators[0].chap is not None
    assert initiators[0].chap.secret == b"host1-secret-0"
    assert initiators[0].mutual_chap is not None
    assert initiators[0].mutual_chap.secret == b"primary-secret"
    assert initiators[1].name == "eui.02004567a425678d"
    assert initiators[1].luns is None
    assert config.volumes["data"].size == 1 << 30
    assert config.volumes["data"].block_size == 512
    log = config.volumes["log"]
    assert (log.block_size, log.write_cache, log.read_only, log.removable, log.thin) == (4096, False, True, True, False)
    assert log.path == folder / "log.img"
    assert {number: lun.volume for number, lun in config.luns.items()} == {0: "data", 1: "log"}


def test_defaults(folder: Path) -> None:
    config = load_text(folder, SMALL + "volumes: {v: {size: 512}}\n")
    assert config.state_dir == folder / "state/a"
    assert config.iscsi.listen == (Address("127.0.0.1", 3260),)
    assert config.iscsi.target == "iqn.2026-11.io.arrayd:a"
    assert config.iscsi.initiators is None
    assert config.iscsi.advertise == ()
    volume = config.volumes["v"]
    assert (volume.write_cache, volume.read_only, volume.removable, volume.thin) == (True, False, False, True)
    assert volume.path is None


def test_values_are_frozen(folder: Path) -> None:
    config = load_text(folder, SMALL)
    with pytest.raises(ValidationError):
        config.array.name = "other"  # type: ignore[misc]


def test_secrets_show_nowhere(folder: Path) -> None:
    config = load_text(folder, GOOD)
    for text in (repr(config), str(config), f"{config!r:}"):
        assert "host1-secret-0" not in text
        assert "primary-secret" not in text
        assert "host1.secret" in text


EXAMPLES = sorted(set((Path(__file__).parent.parent / "config").glob("*.yaml")))
HOSTS = "hosts.yaml"
"""Is a host's; see `tests/config/test_examples.py`."""


@pytest.mark.parametrize("file", [file for file in EXAMPLES if file.name != HOSTS], ids=str)
def test_the_examples_are_good(file: Path) -> None:
    load(file)


@pytest.mark.parametrize("plain", ["10:30", "1:10:30", "010", "0x1F", "0b11", "1_000", "+5", "12345678901234567890"])
@pytest.mark.parametrize(
    "where", ["array: {{name: a, serial: {}}}", "array: {{name: a, serial: '1'}}\niscsi: {{poll_us: {}}}"]
)
def test_surprising_numbers_are_refused(folder: Path, plain: str, where: str) -> None:
    (mistake,) = mistakes_in(folder, where.format(plain))
    assert f'{plain}: expected quotes, "{plain}"' in mistake


@pytest.mark.parametrize(
    "plain", ["on", "off", "yes", "no", "On", "YES", "2026-11-01", "1.0e+3", ".inf", "190:20:30.15"]
)
def test_surprising_words_are_refused(folder: Path, plain: str) -> None:
    (mistake,) = mistakes_in(folder, f"{SMALL}volumes: {{v: {{size: 1MiB, thin: {plain}}}}}\n")
    assert mistake.startswith(f'volumes.v.thin: {plain}: expected quotes, "{plain}"')


def test_surprising_keys_are_refused(folder: Path) -> None:
    text = SMALL + "volumes: {on: {size: 1MiB}}\nluns: {010: {volume: x}}\n"
    on, octal = mistakes_in(folder, text)
    assert on.startswith('volumes.on: on: expected quotes, "on"')
    assert octal.startswith('luns.010: 010: expected quotes, "010"')


def test_quoted_values_are_text(folder: Path) -> None:
    config = load_text(folder, "array: {name: 'on', serial: '010'}\nvolumes: {'no': {size: '1024'}}\n")
    assert (config.array.name, config.array.serial, config.volumes["no"].size) == ("on", "010", 1024)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "(file): (nothing): expected a mapping"),
        ("[]\n", "(file): (a list): expected a mapping"),
        ("array: {name: a, serial: 410001}\n", 'array.serial: 410001: expected a string of 1 to 16 printable ASCII '
         'characters, no space at its ends: write it in quotes, "410001"'),
        ("array: {name: a}\n", "array.serial: missing: expected a string of 1 to 16 printable ASCII characters, "
         "no space at its ends"),
        ("array: primary\n", "array: primary: expected a mapping with the keys name and serial"),
        (SMALL + "statedir: x\n", "statedir: x: expected a known key; did you mean state_dir?"),
        (
            SMALL + "pairs: {}\n",
            "pairs: (a mapping): expected one of the keys array, state_dir, iscsi, volumes, luns, link, commands, "
            "replication",
        ),
        (SMALL + "luns: {1: {}}\n", "luns.1: (a mapping): expected one of volume, virtual and command_device"),
        (
            SMALL + "volumes: {v: {size: 1MiB}}\nlink: {arrays: {b: null}}\n"
            "luns: {1: {volume: v, virtual: {array: b, lun: 0}}}\n",
            "luns.1.virtual: (a mapping): expected one of volume, virtual and command_device",
        ),
        (
            SMALL + "luns: {1: {virtual: {array: remot, lun: 0}}}\nlink: {arrays: {remote: null}}\n",
            "luns.1.virtual.array: remot: expected the name of an array under link.arrays; did you mean remote?",
        ),
        (
            SMALL + "link: {listen: '0.0.0.0:3270'}\n",
            "link.secret_file: missing: expected secret_file or tls: without them arrays are linked over loopback only",
        ),
        (
            SMALL + "link: {arrays: {b: 'array-b:3270'}}\n",
            "link.secret_file: missing: expected secret_file or tls: without them arrays are linked over loopback only",
        ),
        (
            SMALL + "link: {tls: {certificate: /none, key: /none, ca: /none}}\n",
            "link.tls.ca: /none: expected a file that can be read (No such file or directory)",
        ),
        (SMALL + "link: {timeout: 0}\n", "link.timeout: 0: expected seconds, 1 to 300"),
        (SMALL + "state_dir: ''\n", 'state_dir: "": expected a path'),
        (SMALL + "iscsi: {listen: 127.0.0.1}\n", "iscsi.listen: 127.0.0.1: expected a list of addresses"),
        (SMALL + "iscsi: {listen: []}\n", "iscsi.listen: (a list): expected a list of addresses, at least 1"),
        (SMALL + "iscsi: {listen: ['a:1', '::1:1']}\n", "iscsi.listen[1]: ::1:1: expected an IP address and a port, "
         "such as 127.0.0.1:3260 or [::1]:3260 (port 0: the kernel chooses)"),
        (SMALL + "iscsi: {listen: ['127.0.0.1:1', '127.0.0.1:1']}\n",
         "iscsi.listen[1]: 127.0.0.1:1: expected each address once"),
        (SMALL + "iscsi: {poll_us: 1001}\n", "iscsi.poll_us: 1001: expected microseconds, 0 to 1000"),
        (SMALL + "iscsi: {poll_us: true}\n", "iscsi.poll_us: true: expected microseconds, 0 to 1000"),
        (SMALL + "iscsi: {initiators: [{name: eui.0123456789abcdef}, {name: eui.0123456789ABCDEF}]}\n",
         "iscsi.initiators[1].name: eui.0123456789abcdef: expected each initiator once"),
        (SMALL + "iscsi: {initiators: [{name: eui.0123456789abcdef, chapp: {}}]}\n",
         "iscsi.initiators[0].chapp: (a mapping): expected a known key; did you mean chap?"),
        (SMALL + "volumes: {v: {sise: 1GiB}}\n", "volumes.v.sise: 1GiB: expected a known key; did you mean size?"),
        (SMALL + "replication: {copy_rate: 50}\n",
         "replication.copy_rate: 50: expected bytes a second, such as 50MiB: 64KiB at the least"),
        (SMALL + "volumes: {v: {size: 1000}}\n", "volumes.v.size: 1000: expected a multiple of the block size, 512"),
        (SMALL + "volumes: {v: {size: 512, block_size: 4096}}\n",
         "volumes.v.size: 512: expected a multiple of the block size, 4096"),
        (SMALL + "volumes: {v: {size: 4096, block_size: 4096, physical_block_size: 512}}\n",
         "volumes.v.physical_block_size: 512: expected the block size, 4096, or more"),
        (SMALL + "volumes: {v: {size: 512, block_size: 513}}\n", "volumes.v.block_size: 513: expected 512 or 4096"),
        (SMALL + "volumes: {v: {size: 512, thin: 'yes'}}\n", "volumes.v.thin: yes: expected true or false"),
        (SMALL + "volumes: {V: {size: 512}}\n", "volumes.V: V: expected a name of 1 to 32 of a-z, 0-9, '-' and '_' "
         "that starts with a letter or a digit"),
        (SMALL + "volumes: {v: {size: 512, path: f}, w: {size: 512, path: ./f}}\n",
         "volumes.w.path: {folder}/f: expected a file of its own: volume v has this one"),
        (SMALL + "volumes: {data: {size: 512}}\nluns: {0: {volume: dat}}\n",
         "luns.0.volume: dat: expected the name of a volume under volumes; did you mean data?"),
        (SMALL + "volumes: {v: {size: 512}}\nluns: {0: {volume: v}, 1: {volume: v}}\n",
         "luns.1.volume: v: expected a volume of its own: LUN 0 has this one"),
        (SMALL + "volumes: {v: {size: 512}}\nluns: {16384: {volume: v}}\n",
         "luns.16384: 16384: expected a LUN, 0 to 16383"),
        (SMALL + "volumes: {v: {size: 512}}\nluns: {0: {volume: v}, '0': {volume: v}}\n",
         "luns.0: (given twice): expected each key once"),
        (SMALL + "volumes: {a: &a {size: 512}, b: {<<: *a}}\n",
         "volumes.b.<<: (merged): expected every key written out: merge keys are not read"),
        (SMALL + "state_dir: !!python/name:os.system x\n",
         "state_dir: x: expected a value without the tag tag:yaml.org,2002:python/name:os.system"),
        (SMALL + "volumes: !!set {a}\n",
         "volumes: tag:yaml.org,2002:set: expected a plain mapping or list, without a tag"),
        (SMALL + "? [a]\n: b\n",
         "(file): (a key that is a list or a mapping): expected keys that are words or numbers"),
    ],
)  # fmt: skip
def test_what_is_said_about_a_mistake(folder: Path, text: str, expected: str) -> None:
    assert expected.replace("{folder}", str(folder)) in mistakes_in(folder, text)


def test_all_mistakes_are_told_once(folder: Path) -> None:
    text = "array: {name: A, serial: 010}\nstate_dri: x\nvolumes: {v: {size: 1X, thin: on}}\nluns: {0: {volume: w}}\n"
    keys = [line.partition(": ")[0] for line in mistakes_in(folder, text)]
    assert sorted(keys) == [
        "array.name",
        "array.serial",
        "luns.0.volume",
        "state_dri",
        "volumes.v.size",
        "volumes.v.thin",
    ]


CHAP = "array: {{name: a, serial: '1'}}\niscsi: {{initiators: [{{name: eui.0123456789abcdef, {}}}]}}\n"


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"12 bytes ...", 0o600, None),
        (b"12 bytes ...\n", 0o400, None),
        (b"x" * 128 + b"\n", 0o600, None),
        (b"11 bytes ..\n", 0o600, "a file with a secret of 12 to 128 bytes (RFC 7143, 12.1.3)"),
        (b"x" * 129, 0o600, "a file with a secret of 12 to 128 bytes (RFC 7143, 12.1.3)"),
        (b"12 bytes ...", 0o640, "a file that its owner alone can read (mode 0640 now): chmod 600 {folder}/s"),
        (b"12 bytes ...", 0o604, "a file that its owner alone can read (mode 0604 now): chmod 600 {folder}/s"),
        (None, 0, "a file with a secret of 12 to 128 bytes (No such file or directory)"),
    ],
)
def test_secret_files(folder: Path, content: bytes | None, mode: int, said: str | None) -> None:
    if content is not None:
        (folder / "s").write_bytes(content)
        (folder / "s").chmod(mode)
    text = CHAP.format("chap: {user: u, secret_file: s}")
    if said is None:
        initiators = load_text(folder, text).iscsi.initiators
        assert initiators is not None
        assert initiators[0].chap is not None
        assert initiators[0].chap.secret == (content or b"").rstrip(b"\n")
    else:
        where = "iscsi.initiators[0].chap.secret_file: s: expected "
        assert mistakes_in(folder, text) == [where + said.replace("{folder}", str(folder))]


@pytest.mark.timeout(10)
def test_what_is_no_file_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "s", 0o600)
    (mistake,) = mistakes_in(folder, CHAP.format("chap: {user: u, secret_file: s}"))
    assert mistake.endswith("(this is not a regular file)")
    os.mkfifo(folder / "fifo.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load(folder / "fifo.yaml")


def test_mutual_chap_needs_chap(folder: Path) -> None:
    (mistake,) = mistakes_in(folder, CHAP.format("mutual_chap: {user: u, secret_file: primary.secret}"))
    assert mistake.startswith("iscsi.initiators[0].mutual_chap: (a mapping): expected chap beside it")


def test_the_two_directions_never_share_a_secret(folder: Path) -> None:
    (folder / "same.secret").write_bytes(b"host1-secret-0\n")
    (folder / "same.secret").chmod(0o600)
    chap = "chap: {user: u, secret_file: host1.secret}, mutual_chap: {user: p, secret_file: same.secret}"
    (mistake,) = mistakes_in(folder, CHAP.format(chap))
    assert mistake.startswith("iscsi.initiators[0].mutual_chap.secret_file: ")
    assert "never share one" in mistake


@pytest.mark.parametrize(
    "inside",
    [
        "chap: {user: u, secret: CONFIDENTIAL}",
        "chap: CONFIDENTIAL",
        "chap: {user: u, secret_file: host1.secret, pass: [CONFIDENTIAL]}",
        "chap: {user: u, secret_file: host1.secret, pass: {x: CONFIDENTIAL}}",
        "password: CONFIDENTIAL",
        "chap: {user: u, secret: !!binary CONFIDENTIAL}",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_told(folder: Path, inside: str) -> None:
    assert "CONFIDENTIAL" not in "\n".join(mistakes_in(folder, CHAP.format(inside)))


def test_a_secret_in_broken_yaml_is_not_told(folder: Path) -> None:
    (mistake,) = mistakes_in(folder, "array:\n  chap: {secret: CONFIDENTIAL\n  x: [}\n")
    assert mistake.startswith("line 3, column ")
    assert "CONFIDENTIAL" not in mistake


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 5_000,
        "- " * 50_000,
        "a: &a [*a]\n",
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: [1\n",
        "a: *nobody\n",
        "--- a\n--- b\n",
        "a: b: c\n",
        "\x00\n",
        "a: '\x07'\n",
        "#" * (MAX_FILE_BYTES + 1),
    ],
    ids=lambda text: text[:12],
)
def test_hostile_files_are_one_mistake(folder: Path, text: str) -> None:
    assert len(mistakes_in(folder, text)) == 1


def test_files_that_cannot_be_read(folder: Path) -> None:
    for file in (folder / "none.yaml", folder, Path("/dev/zero")):
        with pytest.raises(ConfigError) as caught:
            load(file)
        assert len(caught.value.lines) == 1
        assert caught.value.lines[0].startswith(f"{file}: ")


def test_bytes_that_are_not_text(folder: Path) -> None:
    file = folder / "array.yaml"
    file.write_bytes(b"array: \xff\n")
    with pytest.raises(ConfigError, match=r"byte 7: not UTF-8: expected text in UTF-8"):
        load(file)
