"""The files of volumes made by command, and the name of one whose row is not as it is.

`NAME.img` is a volume. `NAME.img.pending` is one whose row is about to be made, or was about to be deleted: whether it
is a volume is for the row to say. So a file is made, and given up, under that name, and a crash leaves nothing that is
not known: where there is a row the file gets its name, where there is none it is removed. A file that is called
`NAME.img` is never removed or cut by anything but the command that says so.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from pathlib import Path

from arrayd.blockfile import remove, rename
from arrayd.config import values
from arrayd.log import get_logger

SUFFIX = ".img"
PENDING = ".img.pending"

log = get_logger("estate")


class VolumeFiles:
    """Those of `state_dir`. All that is here blocks: it is called in a thread. Raises OSError."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "volumes"

    def path(self, name: str) -> Path:
        """The file of a volume."""
        return self.folder / f"{name}{SUFFIX}"

    def pending(self, name: str) -> Path:
        """The same while its row is not as it is."""
        return self.folder / f"{name}{PENDING}"

    def put_in_order(self, made: Collection[str], others: Collection[Path]) -> None:
        """Names files as the rows say; `made` are the volumes made by command, `others` the files of other volumes."""
        for pending in sorted(self.folder.glob(f"*{PENDING}")):
            name = pending.name.removesuffix(PENDING)
            if pending.resolve() in others or not _is_name(name):
                continue
            if name in made:
                rename(pending, self.path(name))
            else:
                remove(pending)
                log.info("removed what is left of a volume that is no more", file=str(pending))
        for name in made:
            if not self.path(name).exists():
                raise FileNotFoundError(
                    errno.ENOENT,
                    f"volume {name}: {self.path(name)} is gone: put it back, or an empty file in its place",
                )

    def begin(self, name: str) -> Path:
        """Where to make the file of a new volume; nothing is there."""
        if self.path(name).exists():
            raise OSError(errno.EEXIST, f"{self.path(name)} is there: move it away")
        self.pending(name).unlink(missing_ok=True)
        return self.pending(name)

    def settle(self, name: str) -> Path:
        """The volume is there to stay; its file."""
        rename(self.pending(name), self.path(name))
        return self.path(name)

    def give_up(self, name: str) -> Path:
        """The volume is about to go; its file."""
        self.pending(name).unlink(missing_ok=True)
        rename(self.path(name), self.pending(name))
        return self.pending(name)

    def remove(self, name: str) -> None:
        """The volume has gone."""
        if self.pending(name).exists():
            remove(self.pending(name))


def _is_name(text: str) -> bool:
    try:
        values.volume_name(text)
    except ValueError:
        return False
    return True
