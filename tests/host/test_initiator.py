"""Our initiator at a real array: logins, CHAP, data both ways, cut connections, restarts."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from arrayd.host import initiator as module
from arrayd.host.addresses import IscsiAddress
from arrayd.host.initiator import Initiator, InitiatorUnit
from arrayd.host.scsi import ScsiTransport
from arrayd.host.transport import Interrupted, Refused, Unreachable
from tests.host.cutter import Cutter
from tests.lab.daemon import TARGET, ArraydProcess, configuration, free_port
from tests.lab.disk import MIB

pytestmark = pytest.mark.slow

NAME = "iqn.1993-08.org.debian:01:host1"
SECRET = "correct horse battery"
TIMEOUT_S = 20.0
VOLUMES = {"data": {"size": "8MiB"}}


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArraydProcess]:
    config = configuration(VOLUMES)
    config["luns"]["300"] = {"volume": "other"}
    config["volumes"]["other"] = {"size": "1MiB"}
    with ArraydProcess(tmp_path_factory.mktemp("array"), config) as process:
        yield process


BEGUN: list[Initiator] = []


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    while BEGUN:
        BEGUN.pop().close()


def begin(address: IscsiAddress) -> Initiator:
    BEGUN.append(Initiator(address, NAME))
    return BEGUN[-1]


def address_of(port: int, lun: int = 0) -> IscsiAddress:
    return IscsiAddress("127.0.0.1", port, TARGET, lun)


def transport_to(port: int, lun: int = 0) -> ScsiTransport:
    return ScsiTransport(InitiatorUnit(begin(address_of(port)), lun), f"LUN {lun}")


def settled(transport: ScsiTransport) -> ScsiTransport:
    """It has heard the unit attention of a new session, which a WRITE is told as an interruption."""
    transport.read(0, 512, TIMEOUT_S)
    return transport


@pytest.mark.parametrize("length", [512, 65536, 65536 + 512, MIB + 512])
def test_what_is_written_is_read(array: ArraydProcess, length: int) -> None:
    """Immediate data, several R2Ts and several Data-In, by the length."""
    data, transport = os.urandom(length), settled(transport_to(array.port))
    transport.write(4096, data, TIMEOUT_S)
    assert transport.read(4096, length, TIMEOUT_S) == data


def test_luns_of_one_target_share_a_session(array: ArraydProcess) -> None:
    initiator = begin(address_of(array.port))
    transports = [ScsiTransport(InitiatorUnit(initiator, lun), "it") for lun in (0, 300)]
    for number, transport in enumerate(transports):
        settled(transport).write(0, bytes([number + 1]) * 512, TIMEOUT_S)
    assert [transport.read(0, 512, TIMEOUT_S)[0] for transport in transports] == [1, 2]
    initiator.close()
    initiator.close()
    assert transports[0].read(0, 512, TIMEOUT_S)[0] == 1, "it logs in again"


def test_errors_name_the_lun_and_the_sense(array: ArraydProcess) -> None:
    with pytest.raises(Refused, match="LUN 0: ILLEGAL REQUEST, LBA OUT OF RANGE") as caught:
        transport_to(array.port).read(1 << 30, 512, TIMEOUT_S)
    assert not caught.value.out_of_sequence
    with pytest.raises(Unreachable, match="LUN 7: ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED"):
        transport_to(array.port, 7).read(0, 512, TIMEOUT_S)


def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:\d+: Connection refused"):
        transport_to(free_port()).read(0, 512, TIMEOUT_S)


def test_no_such_host() -> None:
    initiator = begin(IscsiAddress("no-such-host.invalid", 3260, TARGET, 0))
    with pytest.raises(Unreachable, match=r"no-such-host\.invalid:3260: "):
        initiator.execute(0, bytes(6), b"", 0, TIMEOUT_S)


def test_no_such_target(array: ArraydProcess) -> None:
    initiator = begin(IscsiAddress("127.0.0.1", array.port, "iqn.2026-11.io.arrayd:none", 0))
    with pytest.raises(Unreachable, match="refuses the login: not found"):
        initiator.execute(0, bytes(6), b"", 0, TIMEOUT_S)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4, b"\x23" + b"\xff" * 100, b"\x00" * 100])
def test_something_else_listens(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)
                connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Unreachable):
            transport_to(listener.getsockname()[1]).read(0, 512, TIMEOUT_S)
        thread.join()


def test_somebody_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGIN_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(Unreachable, match="no answer in time"):
        transport_to(listener.getsockname()[1]).read(0, 512, TIMEOUT_S)


# -- CHAP --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArraydProcess]:
    chap = {"user": "host1", "secret_file": "chap.secret"}
    config = configuration(VOLUMES, initiators=[{"name": NAME, "chap": chap}])
    with ArraydProcess(tmp_path_factory.mktemp("guarded"), config, {"chap.secret": SECRET}) as process:
        yield process


def test_chap_lets_in_who_knows_the_secret(guarded: ArraydProcess) -> None:
    address = address_of(guarded.port).with_secret("host1", SECRET.encode())
    transport = settled(ScsiTransport(InitiatorUnit(begin(address), 0), "it"))
    transport.write(0, bytes(512), TIMEOUT_S)


@pytest.mark.parametrize("secret", ["not the secret at all", ""])
def test_chap_keeps_out_who_does_not(guarded: ArraydProcess, secret: str) -> None:
    address = address_of(guarded.port)
    if secret:
        address = address.with_secret("host1", secret.encode())
    with pytest.raises(Unreachable, match="refuses the login: authentication failure") as caught:
        begin(address).execute(0, bytes(6), b"", 0, TIMEOUT_S)
    assert "secret" not in str(caught.value)
    assert SECRET not in guarded.log


# -- cuts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upward", [True, False])
@pytest.mark.parametrize("after", [0, 1, 47, 48, 300])
def test_a_cut_is_an_interruption_and_the_next_command_logs_in(array: ArraydProcess, upward: bool, after: int) -> None:
    """The same ISID takes the session's place, so that nothing of the old one is left."""
    with Cutter(array.port) as cutter:
        transport = settled(transport_to(cutter.port))
        transport.write(0, b"a" * 512, TIMEOUT_S)
        if upward:
            cutter.cut_up = after
        else:
            cutter.cut_down = after
        said = ""
        for _ in range(16):  # 300 bytes are several answers to a WRITE
            try:
                transport.write(0, b"b" * 512, TIMEOUT_S)
            except Interrupted as error:
                said = str(error)
                break
        assert re.search("closed the connection|reset by peer|Broken pipe|UNIT ATTENTION", said)
        assert transport.read(0, 512, TIMEOUT_S) in (b"a" * 512, b"b" * 512)
        assert cutter.connections == 2


def test_a_connection_that_falls_silent_is_given_up(array: ArraydProcess) -> None:
    with Cutter(array.port) as cutter:
        transport = transport_to(cutter.port)
        transport.read(0, 512, TIMEOUT_S)
        cutter.silent = True
        with pytest.raises(Interrupted, match="no answer in time"):
            transport.read(0, 512, 0.2)
        cutter.silent = False
        transport.read(0, 512, TIMEOUT_S)


def test_a_target_that_went_away_is_found_gone_and_found_again(tmp_path: Path) -> None:
    process = ArraydProcess(tmp_path / "array", configuration(VOLUMES))
    with process:
        transport = settled(transport_to(process.port))
        transport.write(0, b"a" * 512, TIMEOUT_S)
        process.kill()
        with pytest.raises(Unreachable, match="Connection refused"):
            transport.read(0, 512, TIMEOUT_S)
        process.start()
        assert transport.read(0, 512, TIMEOUT_S) == b"a" * 512
