"""Arrays in a row, each in the process of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arrayd.array import Array
from tests.lab.array import Place
from tests.lab.initiator import Session


class Row:
    """Arrays by name; `address` is where their hosts log in, `links` where other arrays dial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays: dict[str, Array] = {}
        self.address: dict[str, str] = {}
        self.links: dict[str, str] = {}

    async def start(
        self,
        name: str,
        leads_to: tuple[str, int] | None = None,
        dials: str | None = None,
        timeout: int = 1,
        **changes: Any,
    ) -> Array:
        """Starts `name`, whose LUN 0 is a volume, or leads to a LUN of another array, which it dials then."""
        place = Place(self.folder / name)
        place.folder.mkdir(exist_ok=True)
        place.config["array"] = {"name": name, "serial": f"41000{ord(name)}"}
        place.config["iscsi"]["target"] = target(name)
        link: dict[str, Any] = {"listen": self.links.get(name, "127.0.0.1:0"), "timeout": timeout}
        link["arrays"] = dict.fromkeys(set("abc") - {name})
        if leads_to is not None:
            dials, lun = leads_to
            place.config["luns"]["0"] = {"virtual": {"array": dials, "lun": lun}}
        if dials is not None:
            link["arrays"][dials] = self.links[dials]
        array_ = Array(place.load(link=link, **changes))
        (self.address[name],) = await array_.start()
        listener = array_._links._listener
        assert listener is not None
        self.links[name] = f"127.0.0.1:{listener.address[1]}"
        self.arrays[name] = array_
        return array_

    def volume(self, name: str) -> bytes:
        """What the volume of an array holds."""
        return (self.folder / name / "state" / "volumes" / "data.img").read_bytes()

    async def stop(self, name: str) -> None:
        await self.arrays.pop(name).stop()

    async def session(self, array: str, **options: Any) -> Session:
        """A host on this array."""
        return await Session.open(self.address[array], target(array), **options)


def target(name: str) -> str:
    return f"iqn.2026-11.io.arrayd:{name}"
