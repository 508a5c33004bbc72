"""The configuration: one YAML file to typed, frozen values; every mistake names file, key, value and what was expected.

`document` reads YAML without its surprises, `values` reads single values, `schema` says which keys there are,
`references` and `load` put them together and check what no single key can know; `part` reads what a command says in
place of the file.
"""

from arrayd.config.load import load, part
from arrayd.config.mistakes import ConfigError
from arrayd.config.schema import (
    ArrayConfig,
    ChapConfig,
    CommandsConfig,
    Config,
    DiscoveryConfig,
    InitiatorConfig,
    IscsiConfig,
    LinkConfig,
    LunConfig,
    TlsConfig,
    VolumeConfig,
)
from arrayd.config.values import Address, Secret

__all__ = [
    "Address",
    "ArrayConfig",
    "ChapConfig",
    "CommandsConfig",
    "Config",
    "ConfigError",
    "DiscoveryConfig",
    "InitiatorConfig",
    "IscsiConfig",
    "LinkConfig",
    "LunConfig",
    "Secret",
    "TlsConfig",
    "VolumeConfig",
    "load",
    "part",
]
