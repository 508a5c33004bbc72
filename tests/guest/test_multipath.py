"""dm-multipath in the guest: one disk over two portals, which works on when either is gone."""

import pytest

from tests.lab import multipath
from tests.lab.daemon import configuration
from tests.lab.fixtures import StartArray
from tests.lab.guest import Guest
from tests.lab.multipath import DISK, QUICK, wait_for_active_paths
from tests.lab.openiscsi import Initiator

pytestmark = [pytest.mark.guest, pytest.mark.timeout(240)]


def test_one_disk_over_two_portals_survives_the_loss_of_either(guest: Guest, start_array: StartArray) -> None:
    array = start_array(configuration({"data": {"size": "128MiB"}}, listen=["127.0.0.1:0", "127.0.0.1:0"]))
    both = array.addresses
    ports = [int(address.rpartition(":")[2]) for address in both]
    initiator = Initiator(guest, array.target, ports, QUICK)
    multipath.start(guest)
    initiator.login()
    assert len(set(initiator.disks())) == 2
    wait_for_active_paths(guest, 2)
    guest.check(f"mkfs.ext4 -q -F {DISK} && mount -t ext4 {DISK} /mnt", timeout=90)

    for lost, kept in enumerate(reversed(both)):
        array.kill()
        array.config["iscsi"]["listen"] = [kept]
        array.start()
        wait_for_active_paths(guest, 1)
        guest.check(f"dd if=/dev/urandom of=/mnt/without{lost} bs=1M count=4 conv=fsync 2>/dev/null", timeout=90)
        guest.check(f"cd /mnt && sha256sum without{lost} >>/tmp/sums")
        array.kill()
        array.config["iscsi"]["listen"] = both
        array.start()
        wait_for_active_paths(guest, 2)

    guest.check("echo 3 >/proc/sys/vm/drop_caches; cd /mnt && sha256sum -c /tmp/sums")
    guest.until("umount /mnt")  # who read last may not be gone yet
    guest.check(f"e2fsck -f -n {DISK}", timeout=90)
    guest.check("! dmesg | grep -E 'EXT4-fs error|Buffer I/O|aborting journal'")
    multipath.stop(guest)
    initiator.logout()
