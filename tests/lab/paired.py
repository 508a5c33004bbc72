"""Two real arrays with a group of pairs between them, the wire they have, and the host's tool that commands both."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from arrayd.host.host import Host
from arrayd.host.pair_commands import Process
from arrayd.host.pair_status import PairStatus, parse
from tests.lab.arrayctl import Arrayctl, Ended
from tests.lab.daemon import ArraydProcess, configuration, free_port
from tests.lab.relay import Relay, relay

NEAR, FAR = "near", "far"
GROUP = "oradb"
DEVICE_LUN, JOURNAL_LUN = 9, 20
ASYNC: Mapping[str, str] = {"mode": "async"}


class Wire:
    """What lies between two arrays, of which each dials the other: it can be cut, and counts what it carries."""

    def __init__(self, ports: Mapping[str, int], relays: Mapping[str, Relay]) -> None:
        self.ports = ports
        """Where each array listens."""
        self._relays = relays

    def dialed(self, name: str) -> str:
        """Where an array is dialed."""
        return self._relays[name].address

    def cut(self) -> None:
        """There is no connection, and none can be made."""
        for each in self._relays.values():
            each.down = True
            each.break_off()

    def mend(self) -> None:
        """Connections can be made again."""
        for each in self._relays.values():
            each.down = False

    def limit(self, bytes_a_second: float | None) -> None:
        """No more goes over it, each way of each connection; None: as much as there is."""
        for each in self._relays.values():
            each.bytes_a_second = bytes_a_second

    def delay(self, seconds: float) -> None:
        """What goes over it arrives so much later, each way."""
        for each in self._relays.values():
            each.delay_s = seconds

    @property
    def carried(self) -> int:
        """Bytes that went over it, either way."""
        return sum(each.carried for each in self._relays.values())


@asynccontextmanager
async def wire() -> AsyncIterator[Wire]:
    """One, for arrays that are still to be started."""
    ports = {NEAR: free_port(), FAR: free_port()}
    async with AsyncExitStack() as stack:
        relays = {name: await stack.enter_async_context(relay(f"127.0.0.1:{port}")) for name, port in ports.items()}
        yield Wire(ports, relays)


class PairedArrays:
    """`near`, which has the P-VOLs first, and `far`, each with these volumes at LUNs from 0 on; those named in `paired`
    are the group GROUP. Both run as long as `stack` does. `between` is what they are wired with.
    `paths` is the host's path table. `leg` says how they are paired; `virtual` has LUNs of `near` that lead to LUNs of
    `far`."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        volumes: Mapping[str, Mapping[str, Any]],
        paired: Sequence[str],
        journal_bytes: int,
        between: Wire | None = None,
        leg: Mapping[str, str] = ASYNC,
        virtual: Mapping[int, int] | None = None,
    ) -> None:
        self.paths = folder / "hosts.yaml"
        self._forks = stack.enter_context(Arrayctl())
        ports = {NEAR: free_port(), FAR: free_port()} if between is None else between.ports
        self.near, self.far = (
            stack.enter_context(
                ArraydProcess(
                    folder / name,
                    _configuration(name, volumes, journal_bytes, link, (virtual or {}) if name == NEAR else {}),
                )
            )
            for name, link in _links(ports, between).items()
        )
        numbers = {name: number for number, name in enumerate(volumes)}
        self._luns = [numbers[name] for name in paired]
        told = {
            "paths": {
                name: {"direct": f"iscsi://{array.addresses[0]}/{array.target}/{DEVICE_LUN}"}
                for name, array in ((NEAR, self.near), (FAR, self.far))
            },
            "site": NEAR,
            "groups": {
                GROUP: {
                    "volumes": {name: {NEAR: numbers[name], FAR: numbers[name]} for name in paired},
                    **({"journals": {NEAR: JOURNAL_LUN, FAR: JOURNAL_LUN}} if leg == ASYNC else {}),
                    "legs": [{"from": NEAR, "to": FAR, **leg}],
                }
            },
        }
        self.paths.write_text(yaml.safe_dump(told))

    def name(self, array: ArraydProcess) -> str:
        """NEAR or FAR."""
        return NEAR if array is self.near else FAR

    def run(self, verb: str, *arguments: str) -> Ended:
        """`arrayctl VERB -g GROUP`, whatever comes of it."""
        return self._forks.run("--paths", str(self.paths), verb, "-g", GROUP, *arguments)

    def tool(self, verb: str, *arguments: str, expected: int = 0) -> str:
        """What `arrayctl VERB -g GROUP` prints; it ends with the exit code that is expected."""
        return self.arrayctl(verb, "-g", GROUP, *arguments, expected=expected)

    def arrayctl(self, verb: str, *arguments: str, expected: int = 0) -> str:
        """What `arrayctl VERB` prints, likewise."""
        ended = self._forks.run("--paths", str(self.paths), verb, *arguments)
        assert ended.code == expected, f"{verb} {' '.join(arguments)}: {ended}"
        return ended.output

    def status(self, array: ArraydProcess) -> PairStatus:
        """What an array shows of the group."""
        with self.watching(array) as look:
            return look()

    @contextmanager
    def watching(self, array: ArraydProcess) -> Iterator[Callable[[], PairStatus]]:
        """`status` of an array again and again, in one session."""
        at = self.name(array)
        with Host.load(self.paths) as host:
            way = host.by(at=at)
            yield lambda: parse(way.send(at, Process.PAIR_STATUS, group=GROUP, luns=self._luns))

    def set_pace(self, pace: int) -> None:
        """Of a copy that runs, or is to."""
        with Host.load(self.paths) as host:
            for at in (NEAR, FAR):
                host.by(at=at).send(at, Process.PAIR_SET, group=GROUP, pace=pace)

    def wait_for_pair(self, seconds: int) -> None:
        """Until the pairs are PAIR, and the S-VOLs have all that was written before."""
        self.tool("pairevtwait", "-s", "pair", "-t", str(seconds))
        self.tool("pairsyncwait", "-t", str(seconds))


def _links(ports: Mapping[str, int], between: Wire | None) -> dict[str, dict[str, Any]]:
    """`link` in the configuration of each array."""
    dialed = {name: f"127.0.0.1:{ports[name]}" if between is None else between.dialed(name) for name in ports}
    return {
        name: {"listen": f"127.0.0.1:{ports[name]}", "arrays": {peer: dialed[peer]}}
        for name, peer in ((NEAR, FAR), (FAR, NEAR))
    }


def _configuration(
    name: str,
    volumes: Mapping[str, Mapping[str, Any]],
    journal_bytes: int,
    link: Mapping[str, Any],
    virtual: Mapping[int, int],
) -> dict[str, Any]:
    config = configuration(volumes, target=f"iqn.2026-11.io.arrayd:{name}")
    config["array"] = {"name": name, "serial": f"43000{(NEAR, FAR).index(name)}"}
    config["volumes"]["journal"] = {"size": journal_bytes, "use": "journal"}
    config["luns"] |= {str(JOURNAL_LUN): {"volume": "journal"}, str(DEVICE_LUN): {"command_device": {}}}
    config["luns"] |= {str(lun): {"virtual": {"array": FAR, "lun": there}} for lun, there in virtual.items()}
    return config | {"link": link}
