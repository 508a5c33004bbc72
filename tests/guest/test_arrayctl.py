"""arrayctl on disks and sg nodes of the Linux kernel's initiator: command devices near and far, addressed commands."""

from __future__ import annotations

import pytest

from tests.lab import traveller
from tests.lab.daemon import ArraydProcess, configuration, free_port
from tests.lab.fixtures import StartArray
from tests.lab.guest import Guest
from tests.lab.initramfs import INITIATOR_NAME
from tests.lab.openiscsi import Initiator

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

DEVICE_LUN, THROUGH_LUN = 9, 10
SECONDS_MAX = 120.0


@pytest.fixture
def primary(start_array: StartArray) -> ArraydProcess:
    """The array that the guest logs in to; behind it is another, whose command device it has at a LUN of its own."""
    ports = {"primary": free_port(), "remote": free_port()}
    arrays = {}
    for number, (name, other) in enumerate((("remote", "primary"), ("primary", "remote"))):
        config = configuration({"data": {"size": "8MiB"}}, target=f"iqn.2026-11.io.arrayd:{name}")
        config["array"] = {"name": name, "serial": f"44000{number}"}
        config["luns"][str(DEVICE_LUN)] = {"command_device": {}}
        config["link"] = {
            "listen": f"127.0.0.1:{ports[name]}",
            "arrays": {other: f"127.0.0.1:{ports[other]}" if name == "primary" else None},
        }
        config["commands"] = {"initiators": [INITIATOR_NAME]}
        if name == "primary":
            config["luns"][str(THROUGH_LUN)] = {"virtual": {"array": "remote", "lun": DEVICE_LUN}}
        arrays[name] = start_array(config)
    return arrays["primary"]


def sg_of(guest: Guest, disk: str) -> str:
    return "/dev/" + guest.check(f"ls /sys/block/{disk.removeprefix('/dev/')}/device/scsi_generic")


DRILL = """
import json
from arrayd.host import CommandFailed, Host

with Host.load("/tmp/hosts.yaml") as host, Host.load("/tmp/volume.yaml") as other:
    for way in ({"method": "command-device"}, {"method": "addressed"}, {"addresses": "shortest"}):
        for array in ("primary", "remote"):
            told = host.by(**way).send(array, "echo", text="hello")
            assert told == {"array": array, "text": "hello"}, (way, told)
    long = "x" * 60_000
    assert host.send("remote", "echo", text=long)["text"] == long
    assert host.by(method="addressed").send("remote", "echo", text=long)["text"] == long
    assert other.send("primary", "echo", text="any LUN")["text"] == "any LUN"
    host.send("remote", "volume-create", name="made", size="1MiB")
    host.send("remote", "volume-delete", name="made")
    try:
        host.send("remote", "volume-delete", name="made")
    except CommandFailed as failure:
        print(failure.name, failure.at)
"""
"""What a host does with a command device, near and far, with messages, and by a LUN that is a volume."""


@pytest.mark.parametrize("generic", [False, True], ids=["disk", "sg"])
def test_commands_by_a_device_of_the_kernel(generic: bool, guest: Guest, primary: ArraydProcess) -> None:
    traveller.install(guest, "arrayd.host.cli")
    initiator = Initiator(guest, primary.target, [primary.port])
    initiator.login()
    disk, volume = initiator.disk(DEVICE_LUN), initiator.disk(0)
    initiator.disk(THROUGH_LUN)
    device, other = (sg_of(guest, disk), sg_of(guest, volume)) if generic else (disk, volume)
    paths = f"primary: {{direct: {device}}}, remote: {{through: primary, lun: {THROUGH_LUN}}}"
    guest.check(
        f"echo 'paths: {{{paths}}}' >/tmp/hosts.yaml; echo 'paths: {{primary: {{direct: {other}}}}}' >/tmp/volume.yaml"
    )
    guest.check(f"head -c 8388608 {volume} | md5sum >/tmp/before; cat >/tmp/drill.py <<'EOF'\n{DRILL}EOF")

    assert guest.check("python3 /tmp/drill.py", SECONDS_MAX) == "NOT_FOUND remote"

    status = guest.check("ARRAYCTL_PATHS=/tmp/hosts.yaml python3 -m arrayd.host.cli status", SECONDS_MAX)
    assert [line.split("\t")[:2] for line in status.splitlines()] == [["primary", "normal"], ["remote", "normal"]]
    guest.check(f"echo 3 >/proc/sys/vm/drop_caches; head -c 8388608 {volume} | md5sum | cmp - /tmp/before")
    initiator.logout()
