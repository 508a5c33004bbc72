"""The Linux kernel's initiator: discovery, CHAP both ways, digests, and what it sees of the LUNs it may see."""

import pytest

from tests.lab import openiscsi
from tests.lab.daemon import configuration, free_port
from tests.lab.fixtures import StartArray
from tests.lab.guest import HOST, Guest
from tests.lab.initramfs import INITIATOR_NAME
from tests.lab.openiscsi import Initiator

pytestmark = [pytest.mark.guest, pytest.mark.timeout(180)]

SECRET, MUTUAL_SECRET = "the-host-knows-this", "the-array-knows-this"
SECRETS = {"guest.secret": SECRET, "lab.secret": MUTUAL_SECRET}
BOTH_WAYS = {
    "name": INITIATOR_NAME,
    "chap": {"user": "guest", "secret_file": "guest.secret"},
    "mutual_chap": {"user": "lab", "secret_file": "lab.secret"},
}


def test_discovery_answers_what_the_array_advertises(guest: Guest, start_array: StartArray) -> None:
    port = free_port()
    array = start_array(
        configuration({"data": {"size": "64MiB"}}, listen=[f"127.0.0.1:{port}"], advertise=[f"{HOST}:{port}"])
    )
    initiator = Initiator(guest, array.target, [port])
    (line,) = initiator.discover()
    assert line.startswith(f"{HOST}:{port},")
    assert line.endswith(f" {array.target}")
    assert initiator.try_login().status == 0  # by the record that discovery made
    initiator.disk()
    initiator.logout()


@pytest.mark.parametrize(
    ("secret", "status"), [(SECRET, 0), ("not-what-it-knows", openiscsi.LOGIN_AUTHENTICATION_FAILED)]
)
def test_discovery_by_chap(guest: Guest, start_array: StartArray, secret: str, status: int) -> None:
    chap = {"user": "guest", "secret_file": "guest.secret"}
    array = start_array(configuration({"data": {"size": "64MiB"}}, discovery_chap={"chap": chap}), SECRETS)
    answer = Initiator(guest, array.target, [array.port]).discover_by_chap("guest", secret)
    assert answer.status == status, answer.output
    assert (array.target in answer.output) == (status == 0)


def test_mutual_chap_and_both_digests(guest: Guest, start_array: StartArray) -> None:
    array = start_array(configuration({"data": {"size": "64MiB"}}, initiators=[BOTH_WAYS]), SECRETS)
    settings = openiscsi.chap("guest", SECRET, "lab", MUTUAL_SECRET) | openiscsi.BOTH_DIGESTS
    initiator = Initiator(guest, array.target, [array.port], settings)
    initiator.login()
    session = guest.check("iscsiadm -m session -P 2")
    assert "HeaderDigest: CRC32C" in session
    assert "DataDigest: CRC32C" in session
    assert "username: guest" in session
    assert "username_in: lab" in session
    # 8 MiB of random data goes out and comes back under both digests, past the guest's page cache.
    disk = initiator.disk()
    guest.check(
        "dd if=/dev/urandom of=/tmp/random bs=1M count=8 2>/dev/null\n"
        f"dd if=/tmp/random of={disk} bs=1M conv=fsync 2>/dev/null\n"
        f"echo 3 >/proc/sys/vm/drop_caches; dd if={disk} bs=1M count=8 2>/dev/null | cmp - /tmp/random"
    )
    initiator.logout()


@pytest.mark.parametrize(
    ("secret", "mutual_secret", "status"),
    [
        ("not-what-it-knows", MUTUAL_SECRET, openiscsi.LOGIN_AUTHENTICATION_FAILED),
        (SECRET, "not-what-it-knows", openiscsi.LOGIN_FATAL),  # here the initiator is the one who refuses
    ],
    ids=["host", "array"],
)
def test_a_wrong_secret_is_refused(
    guest: Guest, start_array: StartArray, secret: str, mutual_secret: str, status: int
) -> None:
    array = start_array(configuration({"data": {"size": "64MiB"}}, initiators=[BOTH_WAYS]), SECRETS)
    initiator = Initiator(guest, array.target, [array.port], openiscsi.chap("guest", secret, "lab", mutual_secret))
    initiator.record()
    assert initiator.try_login().status == status
    assert SECRET not in array.log
    assert MUTUAL_SECRET not in array.log


def test_masked_luns_are_not_seen(guest: Guest, start_array: StartArray) -> None:
    volumes = {"first": {"size": "32MiB"}, "second": {"size": "48MiB"}, "third": {"size": "64MiB"}}
    array = start_array(configuration(volumes, initiators=[{"name": INITIATOR_NAME, "luns": [0, 2]}]))
    initiator = Initiator(guest, array.target, [array.port])
    initiator.login()
    sizes = {guest.check(f"blockdev --getsize64 {initiator.disk(lun)}") for lun in (0, 2)}
    assert sizes == {str(32 << 20), str(64 << 20)}
    listing = guest.check("ls -d /sys/class/iscsi_session/session*/device/target*/*:*:*:*")
    assert [line.rpartition(":")[2] for line in listing.split()] == ["0", "2"]
    initiator.logout()


def test_lun_0_without_a_volume_gets_an_sg_node(guest: Guest, start_array: StartArray) -> None:
    config = configuration({"data": {"size": "32MiB"}})
    config["luns"] = {"1": {"volume": "data"}}
    array = start_array(config)
    initiator = Initiator(guest, array.target, [array.port])
    initiator.login()
    initiator.disk(1)
    node = guest.until("basename /sys/class/iscsi_session/session*/device/target*/*:0/scsi_generic/sg*")
    assert "PDT=12" in guest.check(f"sg_inq /dev/{node}")  # SPC-5, 6.7.2: storage array controller device
    guest.until(f"sg_turs /dev/{node}")  # the first is answered with the unit attention of a new I_T nexus
    initiator.logout()


def test_a_lun_added_by_a_reload_is_seen(guest: Guest, start_array: StartArray) -> None:
    array = start_array(configuration({"data": {"size": "32MiB"}}))
    initiator = Initiator(guest, array.target, [array.port])
    initiator.login()
    initiator.disk(0)
    array.config["volumes"]["more"] = {"size": "48MiB"}
    array.config["luns"]["1"] = {"volume": "more"}
    array.reload()
    guest.until("sg_turs /dev/sg0; dmesg | grep 'LUN assignments on this target have changed'")
    initiator.rescan()
    assert guest.check(f"blockdev --getsize64 {initiator.disk(1)}") == str(48 << 20)
    initiator.logout()
