"""The log, through a real pipe: what a line looks like, and that its reader never holds anyone up."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator

import pytest

from arrayd import log

NOON = 1_800_000_000.0


class Pipe:
    """A pipe in place of standard error."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4 * log.LINE_BYTES_MAX)

    def lines(self) -> list[str]:
        """Everything in it."""
        os.set_blocking(self.reader, False)
        data = b""
        try:
            while chunk := os.read(self.reader, 65536):
                data += chunk
        except BlockingIOError:
            pass
        return data.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that is the log until the test ends."""
    pipe = Pipe()
    yield pipe
    log.configure(level="warning")
    os.close(pipe.reader)
    os.close(pipe.writer)


def clock_at(seconds: float) -> Callable[[], float]:
    """A wall clock that stands still."""
    return lambda: seconds


def test_a_line_for_people(pipe: Pipe) -> None:
    log.configure(level="info", descriptor=pipe.writer, clock=clock_at(NOON))
    log.get_logger("iscsi").info("login", initiator="iqn.x", lun=3)
    log.get_logger("iscsi").debug("not shown")
    (line,) = pipe.lines()
    assert line.startswith("2027-01-15T08:00:00.000Z [info")
    for part in ("login", "initiator=iqn.x", "lun=3", "room=iscsi"):
        assert part in line
    assert "\x1b" not in line


def test_a_line_of_json(pipe: Pipe) -> None:
    log.configure(level="debug", json=True, descriptor=pipe.writer, clock=clock_at(NOON))
    log.get_logger("scsi").debug("reset", lun=0, name="größe", data=b"\x00")
    (line,) = pipe.lines()
    assert json.loads(line) == {
        "timestamp": "2027-01-15T08:00:00.000Z",
        "level": "debug",
        "event": "reset",
        "room": "scsi",
        "lun": 0,
        "name": "größe",
        "data": "b'\\x00'",
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_peer_sends_cannot_write_lines_of_its_own(pipe: Pipe, as_json: bool) -> None:
    log.configure(json=as_json, descriptor=pipe.writer)
    log.get_logger("iscsi").warning("bad key", key="a\nforged line\r\x1b[2J\u202e\ud800", long="x" * 10_000)
    (line,) = pipe.lines()
    assert line.isprintable()
    assert len(line) < 1000


def test_an_exception_is_told(pipe: Pipe) -> None:
    log.configure(json=True, descriptor=pipe.writer)
    try:
        raise ValueError("bad\x1b[2J" + "y" * 10_000)
    except ValueError:
        log.get_logger("array").exception("failed")
    (line,) = pipe.lines()
    exception = json.loads(line)["exception"]
    assert exception.endswith("yyy")
    assert len(exception) == log.EXCEPTION_CHARS_MAX


def test_a_line_too_long_gives_way_whole(pipe: Pipe) -> None:
    log.configure(json=True, descriptor=pipe.writer)
    log.get_logger("array").error("much", **{f"field{number}": "\x00" * 300 for number in range(20)})
    (line,) = pipe.lines()
    assert json.loads(line)["event"] == "much"
    assert json.loads(line)["cut"] is True


def test_a_reader_that_stopped_holds_nobody_up(pipe: Pipe) -> None:
    log.configure(json=True, descriptor=pipe.writer, clock=clock_at(NOON))
    logger = log.get_logger("iscsi")
    for number in range(400):
        logger.warning("again", number=number, filling="x" * 200)
    told = [json.loads(line)["number"] for line in pipe.lines()]
    assert told == list(range(len(told)))
    assert 0 < len(told) < 400
    logger.warning("and now")
    (line,) = pipe.lines()
    assert json.loads(line)["lines_dropped"] == 400 - len(told)


def test_lines_past_the_rate_are_dropped_and_counted(pipe: Pipe) -> None:
    now = [NOON]
    log.configure(json=True, descriptor=pipe.writer, clock=lambda: now[0])
    logger = log.get_logger("iscsi")
    told = 0
    for _ in range(log.LINES_PER_SECOND_MAX + 7):
        logger.warning("again")
        told += len(pipe.lines())
    assert told == log.LINES_PER_SECOND_MAX
    now[0] += 1
    logger.warning("and now")
    assert json.loads(pipe.lines()[0])["lines_dropped"] == 7


def test_a_reader_that_went_away_is_no_error() -> None:
    pipe = Pipe()
    os.close(pipe.reader)
    try:
        log.configure(descriptor=pipe.writer)
        log.get_logger("array").critical("nobody hears")
    finally:
        log.configure(level="warning")
        os.close(pipe.writer)
