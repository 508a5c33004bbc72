"""Rows made by command, as typed as those of the configuration, and both together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel

from arrayd.config import values
from arrayd.config.load import part
from arrayd.config.mistakes import ConfigError
from arrayd.config.schema import Config, LinkConfig, LunConfig, VolumeConfig
from arrayd.config.values import Address
from arrayd.tables.estate import EstateRows

Source = Literal["file", "command"]


@dataclass(frozen=True)
class Rows:
    """What was made by command."""

    volumes: Mapping[str, VolumeConfig] = field(default_factory=dict)
    luns: Mapping[int, LunConfig] = field(default_factory=dict)
    connections: Mapping[str, Address | None] = field(default_factory=dict)
    """By the name of the array; None: that array dials."""
    devices: Mapping[int, str] = field(default_factory=dict)
    """Command devices of other arrays: the LUN of the virtual volume that leads there, and the array."""

    @classmethod
    def of(cls, stored: EstateRows) -> Rows:
        """What is stored. Raises ValueError for what cannot have been stored by a command."""
        devices = {lun: array for array, lun in stored.command_devices}
        if len(devices) != len(stored.command_devices):
            raise ValueError("tables.db: command_devices: a LUN that leads to two arrays")
        try:
            return cls(
                {
                    values.volume_name(name): part(VolumeConfig, ("volumes", name), json.loads(settings))
                    for name, settings in stored.volumes.items()
                },
                {
                    values.lun(lun): part(LunConfig, ("luns", str(lun)), json.loads(settings))
                    for lun, settings in stored.luns.items()
                },
                {
                    values.array_name(name): None if address is None else values.advertised_address(address)
                    for name, address in stored.connections.items()
                },
                {values.lun(lun): values.array_name(array) for lun, array in devices.items()},
            )
        except (ConfigError, ValueError) as error:
            raise ValueError(f"tables.db: {str(error).partition(chr(10))[0]}") from error


def stored_settings(section: BaseModel) -> str:
    """What `volumes.NAME` or `luns.N` says, as the tables keep it."""
    return json.dumps(section.model_dump(exclude_none=True), sort_keys=True)


@dataclass(frozen=True)
class Holdings:
    """A configuration and the rows made by command. Where both have the same row, the file's counts."""

    config: Config
    rows: Rows

    @cached_property
    def volumes(self) -> dict[str, VolumeConfig]:
        """All volumes, by name."""
        return {**self.rows.volumes, **self.config.volumes}

    @cached_property
    def luns(self) -> dict[int, LunConfig]:
        """The whole LUN map (figure 3)."""
        return {**self.rows.luns, **self.config.luns}

    @cached_property
    def link(self) -> LinkConfig:
        """What is said of the link, by default if nothing is."""
        return self.config.link or LinkConfig()

    @cached_property
    def connections(self) -> dict[str, Address | None]:
        """The whole connection table (figure 36)."""
        return {**self.rows.connections, **self.link.arrays}

    @cached_property
    def devices(self) -> dict[int, str]:
        """Command devices of other arrays, by the LUN that leads there."""
        return {**self.rows.devices, **{lun: array for array, lun in self.config.commands.devices.items()}}

    @cached_property
    def lun_of(self) -> dict[str, int]:
        """Where each volume is mapped, if it is."""
        return {lun.volume: number for number, lun in self.luns.items() if lun.volume is not None}

    def leading_to(self, array: str) -> list[int]:
        """The LUNs that are LUNs of this array."""
        return [n for n, lun in self.luns.items() if lun.virtual is not None and lun.virtual.array == array]

    def with_config(self, config: Config) -> Holdings:
        """The same rows made by command, with another configuration."""
        return Holdings(config, self.rows)

    def identity(self, volume: str) -> str:
        """Of a volume, as hosts see it."""
        return f"{self.config.array.serial}:{volume}"


def source(in_file: Mapping[Any, object], key: object) -> Source:
    """Where a row comes from."""
    return "file" if key in in_file else "command"
