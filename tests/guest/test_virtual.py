"""Virtual volumes, by the Linux kernel's initiator: a file system two arrays away (figures 3, 4 and 22), and
dm-multipath with a volume that is reached directly and through another array."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab import multipath
from tests.lab.chain import start_chain
from tests.lab.guest import HOST, OTHER_CARD, OTHER_HOST, Guest
from tests.lab.load import NO_ERRORS, Load
from tests.lab.multipath import DISK, QUICK, path, wait_for_paths
from tests.lab.openiscsi import Initiator

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

OPTIMIZED, NON_OPTIMIZED = 50, 10
"""Priorities that multipath's alua gives (libmultipath/prioritizers/alua.c)."""
LETTER = "written-on-the-first-of-three-arrays"

WRITE_AND_SYNC = f"""
for n in $(seq 8); do
    dd if=/dev/urandom of=/mnt/file$n bs=1M count=1 conv=fsync 2>/dev/null
    (cd /mnt && sha256sum file$n) >>/tmp/sums
done
echo {LETTER} | dd of=/mnt/letter conv=fsync 2>/dev/null
"""


@pytest.fixture
def rows() -> Iterator[ExitStack]:
    """Arrays in rows. They stop after the guest has let go, because every test names them before the guest."""
    with ExitStack() as stack:
        yield stack


def test_a_file_system_two_arrays_away(rows: ExitStack, guest: Guest, tmp_path: Path) -> None:
    near, _, far = start_chain(rows, tmp_path, 2, {"size": "128MiB"})
    initiator = Initiator(guest, near.target, [near.port])
    initiator.login()
    disk = initiator.disk()
    assert guest.check(f"cat /sys/block/$(basename {disk})/device/access_state") == "active/non-optimized"
    guest.check(f"mkfs.ext4 -q -F {disk} && mount -t ext4 {disk} /mnt", timeout=90)
    guest.check(WRITE_AND_SYNC, timeout=90)
    # What was synced is on the far array before the file system is unmounted, and nowhere else.
    assert LETTER.encode() in far.volume_file("data").read_bytes()
    guest.check("echo 3 >/proc/sys/vm/drop_caches; cd /mnt && sha256sum -c /tmp/sums", timeout=90)
    guest.check("umount /mnt")
    guest.check(f"e2fsck -f -n {disk}", timeout=90)
    assert guest.check(f"mount -t ext4 {disk} /mnt && cat /mnt/letter && umount /mnt") == LETTER
    guest.check(NO_ERRORS)
    initiator.logout()


def test_the_far_array_has_the_file_system(rows: ExitStack, guest: Guest, tmp_path: Path) -> None:
    """Made through two arrays, it is mounted on the array that has it; then the other way round."""
    near, _, far = start_chain(rows, tmp_path, 2, {"size": "64MiB"})
    through, direct = (Initiator(guest, array.target, [array.port]) for array in (near, far))
    through.login()
    disk = through.disk()
    identity = guest.check(f"sg_vpd --page=di {disk}").split("NAA")[1]
    guest.check(f"mkfs.ext4 -q -F {disk} && mount -t ext4 {disk} /mnt && echo one >/mnt/letter", timeout=90)
    guest.check("umount /mnt")
    through.logout()
    direct.login()
    disk = direct.disk()
    assert guest.check(f"sg_vpd --page=di {disk}").split("NAA")[1].split()[:8] == identity.split()[:8]
    guest.check(f"mount -t ext4 {disk} /mnt")
    assert guest.check("cat /mnt/letter; echo two >>/mnt/letter") == "one"
    guest.check("umount /mnt")
    direct.logout()
    through.login()
    guest.check(f"mount -t ext4 {through.disk()} /mnt")
    assert guest.check("cat /mnt/letter; umount /mnt").split() == ["one", "two"]
    guest.check(NO_ERRORS)
    through.logout()


def test_one_disk_directly_and_through_another_array_survives_the_loss_of_either(
    rows: ExitStack, guest: Guest, tmp_path: Path
) -> None:
    near, far = start_chain(rows, tmp_path, 1, {"size": "128MiB"})
    through = Initiator(guest, near.target, [near.port], QUICK, HOST)
    direct = Initiator(guest, far.target, [far.port], QUICK, OTHER_HOST)
    multipath.start(guest)
    through.login()
    direct.login()
    worse, better = through.disk(), direct.disk()
    wait_for_paths(guest, path(better, OPTIMIZED), path(worse, NON_OPTIMIZED))
    assert guest.check("multipath -ll -v1") == DISK.rpartition("/")[2]
    guest.check(f"mkfs.ext4 -q -F {DISK} && mount -t ext4 {DISK} /mnt", timeout=90)
    load = Load.start(guest)
    load.goes_on()

    near.kill()
    wait_for_paths(guest, path(better, OPTIMIZED), path(worse, NON_OPTIMIZED, "failed"))
    load.goes_on()
    near.start()
    wait_for_paths(guest, path(better, OPTIMIZED), path(worse, NON_OPTIMIZED))
    load.goes_on()

    before = writes_of(guest, worse)
    guest.check(f"ip link set {OTHER_CARD} down")
    wait_for_paths(guest, path(better, OPTIMIZED, "failed"), path(worse, NON_OPTIMIZED))
    load.goes_on()
    assert writes_of(guest, worse) > before
    guest.check(f"ip link set {OTHER_CARD} up")
    wait_for_paths(guest, path(better, OPTIMIZED), path(worse, NON_OPTIMIZED))

    load.end()
    guest.check(f"umount /mnt && e2fsck -f -n {DISK}", timeout=90)
    guest.check(NO_ERRORS)
    multipath.stop(guest)
    through.logout()
    direct.logout()


def writes_of(guest: Guest, disk: str) -> int:
    """How many writes this disk has taken so far."""
    return int(guest.check(f"cut -c 1- /sys/block/{disk.removeprefix('/dev/')}/stat").split()[4])
