"""Command devices and the section `commands` of the configuration, and parts that commands say in place of the file."""

from pathlib import Path

import pytest

from arrayd.config.load import part
from arrayd.config.mistakes import ConfigError
from arrayd.config.schema import CommandsConfig, LunConfig, VolumeConfig
from tests.test_config import SMALL, folder, load_text, mistakes_in

__all__ = ["folder"]


def test_who_may_command(folder: Path) -> None:
    assert load_text(folder, SMALL).commands == CommandsConfig()
    assert (CommandsConfig().initiators, CommandsConfig().arrays, CommandsConfig().method) == (None, None, "delete")
    config = load_text(
        folder,
        SMALL + "link: {arrays: {b: null}}\nluns: {9: {command_device: {}}, 10: {virtual: {array: b, lun: 9}}}\n"
        "commands: {initiators: [eui.0123456789ABCDEF], arrays: [b], method: keep, devices: {b: 10}}\n",
    )
    assert config.commands.initiators == ("eui.0123456789abcdef",)
    assert (config.commands.arrays, config.commands.method, config.commands.devices) == (("b",), "keep", {"b": 10})
    assert config.luns[9].command_device is not None
    assert config.luns[10].command_device is None


def test_a_part_says_what_a_file_would(folder: Path) -> None:
    volume = part(VolumeConfig, ("volumes", "v"), {"size": "1MiB", "thin": False})
    assert volume == load_text(folder, SMALL + "volumes: {v: {size: 1MiB, thin: false}}\n").volumes["v"]
    with pytest.raises(ConfigError) as caught:
        part(VolumeConfig, ("volumes", "v"), {"size": 1000, "block_size": 512})
    assert caught.value.lines == ["volumes.v.size: 1000: expected a multiple of the block size, 512"]
    with pytest.raises(ConfigError) as caught:
        part(LunConfig, ("luns", "7"), {"virtual": {"array": "b", "lun": -1}, "volum": 3})
    assert caught.value.lines == [
        "luns.7.virtual.lun: -1: expected a LUN, 0 to 16383",
        "luns.7.volum: 3: expected a known key; did you mean volume?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            SMALL + "volumes: {v: {size: 1MiB}}\nluns: {1: {volume: v, command_device: {}}}\n",
            "luns.1.command_device: (a mapping): expected one of volume, virtual and command_device",
        ),
        (SMALL + "luns: {1: {command_device: yours}}\n",
         "luns.1.command_device: yours: expected an empty mapping, {}"),
        (SMALL + "luns: {1: {command_device: {slots: 3}}}\n",
         "luns.1.command_device.slots: 3: expected no key: it has none"),
        (SMALL + "commands: {initiator: []}\n",
         "commands.initiator: (a list): expected a known key; did you mean initiators?"),
        (SMALL + "commands: {initiators: iqn.2026-11.io.arrayd:h}\n",
         "commands.initiators: iqn.2026-11.io.arrayd:h: expected a list of iSCSI names"),
        (SMALL + "commands: {initiators: [host1]}\n",
         "commands.initiators[0]: host1: expected an iSCSI name: iqn.YYYY-MM.reversed.domain:anything, "
         "eui.16-hex-digits or naa.16-or-32-hex-digits"),
        (SMALL + "commands: {initiators: [eui.0123456789abcdef, eui.0123456789ABCDEF]}\n",
         "commands.initiators[1]: eui.0123456789abcdef: expected each initiator once"),
        (SMALL + "commands: {arrays: [B]}\n", "commands.arrays[0]: B: expected a name of 1 to 32 of a-z, 0-9 and '-'"),
        (SMALL + "commands: {arrays: [b, b]}\n", "commands.arrays[1]: b: expected each array once"),
        (SMALL + "commands: {method: drop}\n", "commands.method: drop: expected delete, keep or shortest"),
        (SMALL + "commands: {devices: [b]}\n",
         "commands.devices: (a list): expected a mapping of names of arrays to LUNs"),
        (SMALL + "commands: {devices: {b: x}}\n", "commands.devices.b: x: expected a LUN, 0 to 16383"),
        (SMALL + "commands: {devices: {b: 3}}\n", "commands.devices.b: 3: expected a LUN under luns that is virtual"),
        (SMALL + "volumes: {v: {size: 512}}\nluns: {3: {volume: v}}\ncommands: {devices: {b: 3}}\n",
         "commands.devices.b: 3: expected a LUN under luns that is virtual"),
        (SMALL + "link: {arrays: {b: null}}\nluns: {3: {virtual: {array: b, lun: 9}}}\n"
         "commands: {devices: {b: 3, c: 3}}\n", "commands.devices.c: 3: expected a LUN of its own: b has this one"),
        (SMALL + "link: {arrays: {b: null}}\nluns: {3: {virtual: {array: b, lun: 9}}}\n"
         "commands: {devices: {a: 3}}\n", "commands.devices.a: a: expected another array: this is its own name"),
        (SMALL + "link: {arrays: {a: null}}\n", "link.arrays.a: a: expected another array: this is its own name"),
    ],
)  # fmt: skip
def test_what_is_said_about_a_mistake(folder: Path, text: str, expected: str) -> None:
    assert expected in mistakes_in(folder, text)
