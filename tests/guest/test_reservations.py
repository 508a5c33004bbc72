"""Persistent reservations, target port groups and EXTENDED COPY, with the tools that a Linux host has for them."""

import pytest

from tests.lab.daemon import configuration
from tests.lab.fixtures import StartArray
from tests.lab.guest import Guest
from tests.lab.initramfs import INITIATOR_NAME
from tests.lab.openiscsi import Initiator

pytestmark = [pytest.mark.guest, pytest.mark.timeout(180)]

KEY = "0xfedcba9876543210"


def test_a_reservation_outlives_the_array(guest: Guest, start_array: StartArray) -> None:
    array = start_array(configuration({"data": {"size": "64MiB"}}))
    initiator = Initiator(guest, array.target, [array.port])
    initiator.login()
    disk = initiator.disk()
    guest.check(f"sg_persist --out --register --param-sark={KEY} --param-aptpl {disk}")
    guest.check(f"sg_persist --out --reserve --param-rk={KEY} --prout-type=3 {disk}")
    array.kill()
    array.start()
    guest.until(f"sg_persist --in --read-reservation {disk} | grep 'Exclusive Access'")
    status = guest.check(f"sg_persist --in --read-full-status {disk}")
    assert f"Key={KEY}" in status
    assert f"{INITIATOR_NAME},i,0x" in status
    assert "Reservation holder" in status or "Reservation_holder" in status, status
    guest.check(f"dd if=/dev/zero of={disk} bs=4096 count=1 oflag=direct")
    guest.check(f"sg_persist --out --release --param-rk={KEY} --prout-type=3 {disk}")
    guest.check(f"sg_persist --out --register --param-rk={KEY} --param-sark=0 {disk}")
    assert "there are NO registered reservation keys" in guest.check(f"sg_persist --in --read-keys {disk}")
    initiator.logout()


def test_the_kernel_and_the_tool_read_the_target_port_group(guest: Guest, start_array: StartArray) -> None:
    array = start_array(configuration({"data": {"size": "64MiB"}}))
    initiator = Initiator(guest, array.target, [array.port])
    initiator.login()
    disk = initiator.disk()
    groups = guest.check(f"sg_rtpg --decode {disk}")
    assert "active/optimized" in groups
    assert guest.check(f"cat /sys/block/$(basename {disk})/device/access_state") == "active/optimized"
    initiator.logout()


def test_a_copy_that_the_array_makes(guest: Guest, start_array: StartArray) -> None:
    array = start_array(configuration({"from": {"size": "32MiB"}, "to": {"size": "32MiB"}}))
    initiator = Initiator(guest, array.target, [array.port])
    initiator.login()
    source, destination = (initiator.disk(lun) for lun in (0, 1))
    guest.check(f"dd if=/dev/urandom of={source} bs=64K count=16 oflag=direct")
    guest.check(f"sg_xcopy if={source} of={destination} bs=512 count=2048 skip=0 seek=2048")
    copied = guest.check(f"dd if={destination} bs=64K skip=16 count=16 iflag=direct 2>/dev/null | sha256sum")
    assert copied == guest.check(f"dd if={source} bs=64K count=16 iflag=direct 2>/dev/null | sha256sum")
    initiator.logout()
