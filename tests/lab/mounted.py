"""File systems on several LUNs of an array, which come and go together."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.lab.daemon import ArraydProcess
from tests.lab.fuse import FuseDisk


class Mounted:
    """The file systems on LUNs from 0 on of an array, mounted in `folders` as long as `stack` lasts."""

    def __init__(self, stack: ExitStack, folder: Path, array: ArraydProcess, luns: int, *, made: bool) -> None:
        self._disks = [stack.enter_context(FuseDisk(folder / f"export{lun}", array, lun)) for lun in range(luns)]
        self.folders = [folder / f"mounted{lun}" for lun in range(luns)]
        for disk in self._disks:
            if made:
                disk.make_file_system()
        self._mount()

    def _mount(self) -> None:
        for disk, mounted in zip(self._disks, self.folders, strict=True):
            disk.mount(mounted)

    def check(self) -> None:
        """e2fsck has nothing to say when they were mounted once, which replays their journals."""
        for disk in self._disks:
            disk.unmount()
            disk.check_file_system()
        self._mount()

    def abandon(self) -> None:
        """The host goes down."""
        for disk in self._disks:
            disk.abandon()

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """See `FuseDisk.abandoned_on_error`."""
        with ExitStack() as each:
            for disk in self._disks:
                each.enter_context(disk.abandoned_on_error())
            yield
