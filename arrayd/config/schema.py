"""The sections and keys of the configuration as typed frozen values; a field's description says what is expected.

A new section is a new class here and a field of `Config`. Sequences are tuples; the mappings are plain dicts, which
nobody changes after loading.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from arrayd.config import values
from arrayd.config.section import (
    FromList,
    IscsiName,
    Lun,
    SecretFile,
    Section,
    VolumeName,
    beside_file,
    by,
    mistake,
)
from arrayd.config.values import Address

PORTALS_MAX = 16
INITIATORS_MAX = 1024
VOLUMES_MAX = 1024
LUNS_MAX = 1024
POLL_US_MAX = 1000
ARRAYS_MAX = 64
COMMAND_DEVICES_MAX = 256
LINK_TIMEOUT_MAX = 300

ArrayName = Annotated[str, by(values.array_name)]
Serial = Annotated[str, by(values.serial)]
ListenAddress = Annotated[Address, by(values.listen_address)]
AdvertisedAddress = Annotated[Address, by(values.advertised_address)]
ChapUser = Annotated[str, by(values.chap_user)]
FilePath = Annotated[Path, beside_file(values.path)]
Size = Annotated[int, by(values.size)]
CopyRate = Annotated[int, by(values.copy_rate)]


class ArrayConfig(Section):
    """`array`: who this array is."""

    name: ArrayName = Field(description="a name of 1 to 32 of a-z, 0-9 and '-'")
    serial: Serial = Field(description="a string of 1 to 16 printable ASCII characters, no space at its ends")


class ChapConfig(Section):
    """One direction of CHAP (RFC 7143, 12.1.3): who proves its name, and the secret it proves it with."""

    user: ChapUser = Field(description="a name of 1 to 255 printable bytes")
    secret_file: SecretFile = Field(description="a file with a secret of 12 to 128 bytes")

    @property
    def secret(self) -> bytes:
        """The secret itself. Never log it."""
        return self.secret_file.value


CHAP = "a mapping with the keys user and secret_file"


class DiscoveryConfig(Section):
    """`iscsi.discovery_chap`: who may hold a discovery session. `chap` is the initiator's proof, `mutual_chap` ours."""

    chap: ChapConfig | None = Field(default=None, description=CHAP)
    mutual_chap: ChapConfig | None = Field(default=None, description=CHAP)

    @model_validator(mode="after")
    def _mutual_needs_chap(self) -> Self:
        """RFC 7143, 12.1.3: the target proves itself only in answer to an initiator that does."""
        if self.mutual_chap is not None and self.chap is None:
            raise mistake("chap beside it: a target proves itself only to an initiator that does", "mutual_chap")
        return self


class InitiatorConfig(DiscoveryConfig):
    """`iscsi.initiators[]`: one initiator that may log in, how both prove who they are, and what it sees."""

    name: IscsiName = Field(description="an iSCSI name")
    luns: Annotated[tuple[Lun, ...], FromList] | None = Field(default=None, description="a list of LUNs")
    """None: all of them."""


class IscsiConfig(Section):
    """`iscsi`: the target and who may log in to it."""

    listen: Annotated[tuple[ListenAddress, ...], FromList] = Field(
        default=(Address("127.0.0.1", 3260),), min_length=1, max_length=PORTALS_MAX, description="a list of addresses"
    )
    advertise: Annotated[tuple[AdvertisedAddress, ...], FromList] = Field(
        default=(), max_length=PORTALS_MAX, description="a list of addresses"
    )
    """What SendTargets answers. Empty: the addresses listened on."""
    target: IscsiName = Field(description="an iSCSI name")
    initiators: Annotated[tuple[InitiatorConfig, ...], FromList] | None = Field(
        default=None, max_length=INITIATORS_MAX, description="a list of initiators"
    )
    """None: any initiator, from loopback only. Peers from elsewhere are refused at login, whatever `listen` says.
    Empty: nobody."""
    discovery_chap: DiscoveryConfig | None = Field(
        default=None, description="a mapping with the keys chap and, optionally, mutual_chap"
    )
    poll_us: int = Field(default=50, ge=0, le=POLL_US_MAX, description=f"microseconds, 0 to {POLL_US_MAX}")
    """Adaptive polling: for so long after activity the event loop spins before it sleeps. 0: never."""


class VolumeConfig(Section):
    """`volumes.NAME`: one logical volume."""

    size: Size = Field(description="a size such as 1GiB or 512MiB, or a number of bytes")
    """Bytes; a multiple of block_size."""
    block_size: Literal[512, 4096] = Field(default=512, description="512 or 4096")
    """Bytes of a logical block."""
    physical_block_size: Literal[512, 4096] | None = Field(default=None, description="512 or 4096")
    """Bytes of the physical block that hosts are told of; None: a logical block."""
    write_cache: bool = Field(default=True, description="true or false")
    """False: a write is on stable storage before it is answered."""
    read_only: bool = Field(default=False, description="true or false")
    removable: bool = Field(default=False, description="true or false")
    """RMB: the medium may be ejected and loaded by START STOP UNIT."""
    thin: bool = Field(default=True, description="true or false")
    """False: all blocks are allocated on disk when the volume is made, and stay so."""
    use: Literal["data", "journal"] = Field(default="data", description="data or journal")
    """Journal: it is there for the journal of a consistency group (figure 12), which takes all of its disk at once."""
    path: FilePath | None = Field(default=None, description="a path")
    """The file that holds it; None: a file of the volume's name below the state directory."""

    @model_validator(mode="after")
    def _whole_blocks(self) -> Self:
        if self.size % self.block_size:
            raise mistake(f"a multiple of the block size, {self.block_size}", "size")
        if self.physical_block_size is not None and self.physical_block_size < self.block_size:
            raise mistake(f"the block size, {self.block_size}, or more", "physical_block_size")
        return self

    @property
    def is_thin(self) -> bool:
        """Whether disk is allocated as it is written: never that of a journal."""
        return self.thin and self.use == "data"


class VirtualConfig(Section):
    """`luns.N.virtual`: a LUN of another array (figure 3: target and mapping LUN)."""

    array: ArrayName = Field(description="the name of an array under link.arrays")
    lun: Lun = Field(description="a LUN")


class CommandDeviceConfig(Section):
    """`luns.N.command_device`: a command device of this array (figure 5); it has no keys yet."""


class LunConfig(Section):
    """`luns.N`: what a host sees at this LUN: a volume of this array, a LUN of another, or a command device."""

    volume: VolumeName | None = Field(default=None, description="the name of a volume")
    virtual: VirtualConfig | None = Field(default=None, description="a mapping with the keys array and lun")
    command_device: CommandDeviceConfig | None = Field(default=None, description="an empty mapping, {}")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        there = [key for key in type(self).model_fields if getattr(self, key) is not None]
        if len(there) != 1:
            raise mistake("one of volume, virtual and command_device", there[-1] if there else None)
        return self


class TlsConfig(Section):
    """`link.tls`: mutual TLS. Every array shows a certificate for its name (a DNS name in subjectAltName)."""

    certificate: FilePath = Field(description="a file in PEM format")
    key: FilePath = Field(description="a file in PEM format")
    ca: FilePath = Field(description="a file in PEM format")

    @model_validator(mode="after")
    def _files_are_of_use(self) -> Self:
        # Who reads path tables by what is in this module has no use for OpenSSL, which takes its time to load.
        from arrayd.config.tls import TlsFileError, contexts

        try:
            contexts(self.certificate, self.key, self.ca)
        except TlsFileError as error:
            raise mistake(str(error), error.key) from None
        return self


class LinkConfig(Section):
    """`link`: the arrays that this one is linked with."""

    listen: ListenAddress | None = Field(default=None, description="an address")
    """None: this array dials, and is not dialed."""
    arrays: dict[ArrayName, AdvertisedAddress | None] = Field(
        default_factory=dict, max_length=ARRAYS_MAX, description="a mapping of names to addresses, or to null"
    )
    """Null: that array dials."""
    secret_file: SecretFile | None = Field(default=None, description="a file with a secret of 12 to 128 bytes")
    tls: TlsConfig | None = Field(default=None, description="a mapping with the keys certificate, key and ca")
    timeout: int = Field(default=10, ge=1, le=LINK_TIMEOUT_MAX, description=f"seconds, 1 to {LINK_TIMEOUT_MAX}")
    """How long what waits for an array survives without a connection."""

    @model_validator(mode="after")
    def _safe_beyond_loopback(self) -> Self:
        addresses = [address for address in (self.listen, *self.arrays.values()) if address is not None]
        if self.secret_file is None and self.tls is None and not all(map(values.is_loopback, addresses)):
            raise mistake("secret_file or tls: without them arrays are linked over loopback only", "secret_file")
        return self


class CommandsConfig(Section):
    """`commands`: who may command this array, and what it does with commands for others."""

    initiators: Annotated[tuple[IscsiName, ...], FromList] | None = Field(
        default=None, max_length=INITIATORS_MAX, description="a list of iSCSI names"
    )
    """None: initiators on this machine, over loopback. Empty: none."""
    arrays: Annotated[tuple[ArrayName, ...], FromList] | None = Field(
        default=None, max_length=ARRAYS_MAX, description="a list of names of arrays"
    )
    """None: those under link.arrays. Each must be there, or be connected by command (`arrayd.estate.conflicts`)."""
    method: Literal["delete", "keep", "shortest"] = Field(default="delete", description="delete, keep or shortest")
    """How addressed commands go on: figures 31/32, 33/34, 37."""
    devices: dict[ArrayName, Lun] = Field(
        default_factory=dict, max_length=COMMAND_DEVICES_MAX, description="a mapping of names of arrays to LUNs"
    )
    """Figure 5: the LUN of the virtual volume that leads to the command device of another array."""


class ReplicationConfig(Section):
    """`replication`: what holds for all pairs of this array."""

    copy_rate: CopyRate | None = Field(default=None, description="bytes a second, such as 50MiB")
    """How quickly all S-VOLs here are copied to together, at the most. None: no limit."""


class Config(Section):
    """A whole configuration file."""

    array: ArrayConfig = Field(description="a mapping with the keys name and serial")
    state_dir: FilePath = Field(description="a path")
    """Where volumes and tables are kept; absolute."""
    iscsi: IscsiConfig = Field(description="a mapping")
    volumes: dict[VolumeName, VolumeConfig] = Field(
        default_factory=dict, max_length=VOLUMES_MAX, description="a mapping of names to volumes"
    )
    luns: dict[Lun, LunConfig] = Field(default_factory=dict, max_length=LUNS_MAX, description="a mapping of LUNs")
    link: LinkConfig | None = Field(default=None, description="a mapping")
    commands: CommandsConfig = Field(default=CommandsConfig(), description="a mapping")
    replication: ReplicationConfig = Field(default=ReplicationConfig(), description="a mapping")

    @model_validator(mode="before")
    @classmethod
    def _defaults_from_name(cls, tree: Any) -> Any:
        """The state directory and the target's name follow from the array's name."""
        if not isinstance(tree, dict):
            return tree
        array = tree.get("array")
        name = array.get("name") if isinstance(array, dict) else None
        filled = {"state_dir": f"state/{name}", "iscsi": {}, **tree}
        if isinstance(filled["iscsi"], dict):
            filled["iscsi"] = {"target": f"iqn.2026-11.io.arrayd:{name}", **filled["iscsi"]}
        return filled
