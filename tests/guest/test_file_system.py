"""ext4 on a LUN, by the Linux kernel's initiator: made, filled, checked, trimmed, grown, and carried over a crash."""

import os

import pytest

from tests.lab import openiscsi
from tests.lab.daemon import ArraydProcess, configuration
from tests.lab.fixtures import StartArray
from tests.lab.guest import Guest
from tests.lab.load import Load
from tests.lab.openiscsi import Initiator

pytestmark = [pytest.mark.guest, pytest.mark.timeout(240)]

STAT_BLOCK_BYTES = 512
FILES, FILE_MIB = 8, 1
RELOAD_TIMEOUT_S = 20.0
ENDS = 2

WRITE_FILES = f"""
for n in $(seq {FILES}); do
    dd if=/dev/urandom of=/mnt/file$n bs=1M count={FILE_MIB} 2>/dev/null
    (cd /mnt && sha256sum file$n) >>/tmp/sums
done
sync
echo 3 >/proc/sys/vm/drop_caches
cd /mnt && sha256sum -c /tmp/sums
"""

NO_ERRORS = "! dmesg | grep -iE 'I/O error|EXT4-fs error|Buffer I/O|aborting journal|Remounting'"


def logged_in(guest: Guest, array: ArraydProcess, settings: dict[str, str] | None = None) -> Initiator:
    initiator = Initiator(guest, array.target, [array.port], settings or {})
    initiator.login()
    return initiator


def make_and_mount(guest: Guest, disk: str) -> None:
    guest.check(f"mkfs.ext4 -q -F {disk} && mount -t ext4 {disk} /mnt", timeout=90)


def unmount_and_check(guest: Guest, disk: str) -> None:
    guest.check(f"umount /mnt && e2fsck -f -n {disk}", timeout=90)
    guest.check(NO_ERRORS)


@pytest.mark.parametrize("block_size", [512, 4096])
def test_files_survive_the_cache_being_dropped_and_fstrim_frees_their_blocks(
    guest: Guest, start_array: StartArray, block_size: int
) -> None:
    array = start_array(configuration({"data": {"size": "256MiB", "block_size": block_size}}))
    initiator = logged_in(guest, array, openiscsi.BOTH_DIGESTS)
    disk = initiator.disk()
    assert guest.check(f"blockdev --getss {disk}") == str(block_size)
    make_and_mount(guest, disk)
    assert guest.check(WRITE_FILES, timeout=90).count(": OK") == FILES
    full = os.stat(array.volume_file("data")).st_blocks * STAT_BLOCK_BYTES
    assert full >= FILES * FILE_MIB << 20
    guest.check("rm /mnt/file*; sync; fstrim /mnt", timeout=90)
    trimmed = os.stat(array.volume_file("data")).st_blocks * STAT_BLOCK_BYTES
    assert trimmed <= full - (FILES * FILE_MIB << 20)
    unmount_and_check(guest, disk)
    initiator.logout()


def test_a_volume_grows_under_a_mounted_file_system(guest: Guest, start_array: StartArray) -> None:
    array = start_array(configuration({"data": {"size": "64MiB"}}))
    initiator = logged_in(guest, array)
    disk = initiator.disk()
    make_and_mount(guest, disk)
    before = int(guest.check("stat -f -c %b /mnt"))
    array.config["volumes"]["data"]["size"] = "192MiB"
    array.reload()
    # The reload has happened when a command is answered with CAPACITY DATA HAS CHANGED, which the kernel logs.
    guest.until(
        f"dd if={disk} of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; dmesg | grep 'Capacity data has changed'",
        RELOAD_TIMEOUT_S,
    )
    initiator.rescan()
    guest.until(f"test $(blockdev --getsize64 {disk}) = {192 << 20}", RELOAD_TIMEOUT_S)
    guest.check(f"resize2fs {disk}", timeout=90)
    assert int(guest.check("stat -f -c %b /mnt")) > 2 * before
    assert guest.check(WRITE_FILES, timeout=90).count(": OK") == FILES
    unmount_and_check(guest, disk)
    initiator.logout()


def test_the_array_ends_under_load_and_the_file_system_sees_no_error(guest: Guest, start_array: StartArray) -> None:
    array = start_array(configuration({"data": {"size": "256MiB"}}))
    initiator = logged_in(guest, array)
    disk = initiator.disk()
    make_and_mount(guest, disk)
    load = Load.start(guest)
    # Terminated, it asks the initiator to log out, and answers what is on its way.
    for end in (array.kill, array.terminate) * ENDS:
        load.goes_on()
        end()
        guest.until("grep FAILED /sys/class/iscsi_session/session*/state")
        array.start()
    load.end()
    unmount_and_check(guest, disk)
    initiator.logout()
