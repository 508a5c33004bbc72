"""A P-VOL's file system, by the Linux kernel's initiator: its array is killed while it is written to, and the S-VOL is
taken over and mounted by the same host; then the sides change places, and it is mounted where it was."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.guest import Guest
from tests.lab.load import NO_ERRORS
from tests.lab.openiscsi import Initiator
from tests.lab.paired import PairedArrays

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

FILES = 4
SECONDS = 60
ERRORS_TIMEOUT_S = 60.0
QUICK = {"node.session.timeo.replacement_timeout": "2"}
"""Seconds after which what waits for an array that is gone ends with an error."""

WRITE_FILES = f"""
for n in $(seq {FILES}); do
    dd if=/dev/urandom of=/mnt/file$n bs=256k count=1 conv=fsync 2>/dev/null
    (cd /mnt && sha256sum file$n) >>/tmp/sums
done
"""
GO_ON_WRITING = "n=0; while dd if=/dev/urandom of=/mnt/later$n bs=64k count=1 conv=fsync; do n=$((n + 1)); done"
CHECK_FILES = "cd /mnt && sha256sum -c /tmp/sums"


@pytest.fixture
def both() -> Iterator[ExitStack]:
    """Where the arrays run. They stop after the guest has let go, because the test names it before the guest."""
    with ExitStack() as stack:
        yield stack


def check_at(guest: Guest, disk: str, files: int) -> None:
    """The file system can be mounted, has the files, takes another one, and e2fsck has nothing to say about it."""
    guest.check(f"mount -t ext4 {disk} /mnt", timeout=90)
    assert guest.check(CHECK_FILES).count(": OK") == files
    guest.check("echo one more >/mnt/more; (cd /mnt && sha256sum more >>/tmp/sums); umount /mnt")
    guest.check(f"e2fsck -f -n {disk}", timeout=90)


def test_a_takeover_and_a_swap_under_a_file_system(both: ExitStack, guest: Guest, tmp_path: Path) -> None:
    arrays = PairedArrays(both, tmp_path, {"data": {"size": "32MiB"}}, ["data"], 64 << 20)
    arrays.tool("paircreate", "-vl", "-f", "async", "-c", "15")
    near, far = (Initiator(guest, array.target, [array.port], QUICK) for array in (arrays.near, arrays.far))
    near.login()
    disk = near.disk()
    guest.check(f"mkfs.ext4 -q -F {disk} && mount -t ext4 {disk} /mnt", timeout=90)
    guest.check(WRITE_FILES, timeout=90)
    arrays.wait_for_pair(SECONDS)
    writing = guest.spawn(GO_ON_WRITING)
    guest.until("test -e /mnt/later3")

    arrays.near.kill()
    arrays.tool("horctakeover", "--at", "far", expected=5)
    assert writing.wait(ERRORS_TIMEOUT_S).status == 0, "the loop ends, with the write that failed"
    guest.until("umount /mnt", ERRORS_TIMEOUT_S)
    guest.check("dmesg -c >/dev/null")
    far.login()
    check_at(guest, far.disk(), FILES)

    arrays.near.start()
    arrays.tool("pairresync", "-swaps", "--at", "far")
    arrays.wait_for_pair(SECONDS)
    arrays.tool("horctakeover", expected=1)
    far.logout()
    check_at(guest, near.disk(), FILES + 1)
    guest.check(NO_ERRORS)
    near.logout()
