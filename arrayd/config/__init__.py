"""The configuration: one YAML file to typed, frozen values; every mistake names file, key, value and what was expected.

`document` reads YAML without its surprises, `values` reads single values, `schema` says which keys there are,
`load` puts them together and checks what no single key can know.
"""

from arrayd.config.load import load
from arrayd.config.mistakes import ConfigError
from arrayd.config.schema import (
    ArrayConfig,
    ChapConfig,
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
]
