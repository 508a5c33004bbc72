"""Real initiators write and read: a volume of the array that they are connected to, and one two arrays away."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from scripts.demonstration.story import DemoError, Story, say
from tests.lab import parts
from tests.lab.daemon import ArraydProcess
from tests.lab.fuse import FuseDisk, FuseError
from tests.lab.three import VOLUME_LUN_OF

FILE_SYSTEM_TIMEOUT_S = 40.0
MIB = 1 << 20
WRITTEN_MIB = 4
LETTER = "written before kill -9"
FAR_LETTER = "written through two arrays"
FAR_LUN = VOLUME_LUN_OF["remote"]


def find_lun(story: Story) -> None:
    """Discovery and identity, by libiscsi's tools."""
    story.step("libiscsi's tools discover the first array and ask LUN 0 who it is")
    if parts.find("iscsi-ls") is None or parts.find("iscsi-inq") is None:
        say("   not shown, no iscsi-ls here: apt-get install libiscsi-bin")
        return
    story.run("iscsi-ls", "--show-luns", f"iscsi://{story.primary.addresses[0]}")
    story.run("iscsi-inq", "--evpd=1", "--pagecode=128", story.primary.url())


def can_write() -> bool:
    """Whether this machine has an initiator that writes."""
    return all(map(parts.find, ("qemu-img", "qemu-io"))) and parts.has_qemu_iscsi()


def write_and_read(story: Story) -> None:
    """QEMU's initiator writes to LUN 0 and reads it back, before and after the array is killed."""
    story.step(f"QEMU's initiator writes {WRITTEN_MIB} random MiB to LUN 0, a sparse file, and reads them back")
    written = write(story, story.primary.url())
    read_back(story, written, story.primary.url(), "read-1")
    story.run("ls", "-lsh", str(story.primary.volume_file("data")))
    story.step("The array is killed and started again; what was acknowledged is still there")
    story.kill(story.primary)
    story.serve(story.primary)
    read_back(story, written, story.primary.url(), "read-2")


def write_far_and_read(story: Story) -> None:
    """The same to a LUN that leads to the third array, and read there."""
    story.step(f"LUN {FAR_LUN} is the volume of remote, two arrays away: written there, and read on remote itself")
    written = write(story, story.primary.url(FAR_LUN))
    read_back(story, written, story.primary.url(FAR_LUN), "read-3")
    read_back(story, written, story.remote.url(), "read-4")


def write(story: Story, url: str) -> Path:
    """Write random data to a LUN's beginning; the file that has the same."""
    written = story.folder / "written"
    written.write_bytes(os.urandom(WRITTEN_MIB * MIB))
    story.run("qemu-io", "-f", "raw", "-c", f"write -s {written} 0 {WRITTEN_MIB}M", url, lines=1)
    return written


def read_back(story: Story, written: Path, url: str, name: str) -> None:
    """Read a LUN into a file of its own; raises DemoError unless it is what was written."""
    copy = story.folder / name
    story.run(
        "qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=1M", f"count={WRITTEN_MIB}", f"if={url}", f"of={copy}"
    )  # fmt: skip
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (written, copy)]
    same = digests[0] == digests[1]
    say(f"     SHA-256 written {digests[0][:16]}, read {digests[1][:16]}: {'the same' if same else 'NOT THE SAME'}")
    if not same:
        raise DemoError("the data is not what was written")


def file_system(story: Story) -> None:
    """ext4 on LUN 0 is mounted while the array is killed, and finds its files again afterwards."""
    story.step("A file system on LUN 0 is mounted while the array is killed: it waits, and goes on")
    with disk_of(story, story.primary, 0) as disk:
        if disk is None:
            return
        with disk:
            mounted = make_and_mount(story, disk)
            with disk.abandoned_on_error():
                write_letter(story, mounted / "before", LETTER)
                story.kill(story.primary)
                story.serve(story.primary)
                write_letter(story, mounted / "after", "and after it")
            disk.unmount()
        with disk:
            check_and_mount(story, disk)
            read_letters(story, disk, {"before": LETTER, "after": "and after it"})


def far_file_system(story: Story) -> None:
    """ext4 on the volume of the third array, written and read through the two others."""
    story.step(f"A file system on LUN {FAR_LUN}: written and read through two arrays, and found on the third")
    with disk_of(story, story.primary, FAR_LUN) as disk:
        if disk is None:
            return
        with disk:
            mounted = make_and_mount(story, disk)
            with disk.abandoned_on_error():
                write_letter(story, mounted / "letter", FAR_LETTER)
            disk.unmount()
        with disk:
            check_and_mount(story, disk)
            read_letters(story, disk, {"letter": FAR_LETTER})
    file = str(story.remote.volume_file("data"))
    story.run("grep", "--count", "--text", FAR_LETTER, file)


@contextlib.contextmanager
def disk_of(story: Story, array: ArraydProcess, lun: int) -> Iterator[FuseDisk | None]:
    """A LUN that can be mounted, for a while; None, and that is said, where the machine does not let us."""
    if lacks := parts.lacks_for_fuse():
        say(f"   not shown: needs {lacks}")
        yield None
        return
    disk = FuseDisk(story.folder / "export", array, lun)
    # Whoever uses the file system sleeps uninterruptibly when the array does not come back; this frees them.
    limit = threading.Timer(FILE_SYSTEM_TIMEOUT_S, disk.abandon)
    limit.daemon = True
    limit.start()
    try:
        try:
            with disk:
                pass
        except FuseError as error:
            say(f"   not shown, this machine does not let us: {str(error).splitlines()[0]}")
            yield None
            return
        yield disk
    finally:
        limit.cancel()


def make_and_mount(story: Story, disk: FuseDisk) -> Path:
    """A new file system; where it is mounted."""
    mounted = story.folder / "mounted"
    story.command("mkfs.ext4", disk.device, "&&", "mount", disk.device, str(mounted))
    disk.make_file_system()
    disk.mount(mounted)
    return mounted


def check_and_mount(story: Story, disk: FuseDisk) -> None:
    """The file system that was unmounted has no fault."""
    mounted = story.folder / "mounted"
    story.command("umount", str(mounted), "&&", "e2fsck", "-f", "-n", disk.device)
    disk.check_file_system()
    story.command("mount", disk.device, str(mounted))
    disk.mount(mounted)


def write_letter(story: Story, path: Path, text: str) -> None:
    """Write a line to a file and sync it."""
    story.command("echo", text, ">", str(path), "&&", "sync", str(path))
    with path.open("w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())


def read_letters(story: Story, disk: FuseDisk, letters: dict[str, str]) -> None:
    """Raises DemoError unless the files are what was written."""
    with disk.abandoned_on_error():
        said = story.run("cat", *(f"{story.folder}/mounted/{name}" for name in letters))
        if said.splitlines() != list(letters.values()):
            raise DemoError("the file is not what was written")
