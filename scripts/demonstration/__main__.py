"""Shows it, and leaves nothing behind but what was asked for. `scripts/demo` says what."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.demonstration import signals, volumes
from scripts.demonstration.commands import commands
from scripts.demonstration.story import DemoError, Story, say
from tests.lab.daemon import DaemonError
from tests.lab.fuse import FuseError
from tests.lab.three import CONFIG, NAMES, ThreeArrays, configuration_of, free_address

EXIT_FAILED = 1
EXIT_NOT_SHOWN = 3


def address(configured: str) -> str:
    """Where to listen: as configured, or at a free port when somebody has that one."""
    host, _, port = configured.rpartition(":")
    try:
        socket.create_server((host, int(port))).close()
    except OSError:
        return free_address(configured)
    return configured


def show(story: Story) -> bool:
    """Every step that this machine has the parts for; whether the data was shown to be there."""
    story.step("Check the configurations of three arrays in a row, and serve copies, their state in a temporary folder")
    story.run_together([(story.arrayd, "check", os.path.relpath(CONFIG / f"{name}.yaml")) for name in NAMES], lines=1)
    for name in NAMES:
        configured = configuration_of(name)["iscsi"]["listen"][0]
        if story.arrays[name].config["iscsi"]["listen"] != [configured]:
            say(f"   {configured} is taken on this machine: a free port instead")
    story.name("DIR", str(story.folder))
    for name in reversed(NAMES):
        story.serve(story.arrays[name])
    story.name("URL", story.primary.url().removesuffix("/0"))
    volumes.find_lun(story)
    can_write = volumes.can_write()
    if can_write:
        volumes.write_and_read(story)
        volumes.file_system(story)
        volumes.write_far_and_read(story)
        volumes.far_file_system(story)
    else:
        story.step("No initiator that writes here; the first array is killed and started again all the same")
        story.kill(story.primary)
        story.serve(story.primary)
    commands(story)
    return can_write


def what_next(story: Story, address: str, kept: bool) -> None:
    """The commands that a user would type now, to the arrays that are left running or their own at ``address``."""
    target = story.primary.target
    by_path = f"/dev/disk/by-path/ip-{address}-iscsi-{target}-lun-0"
    paths = story.folder / "hosts.yaml" if kept else os.path.relpath(CONFIG / "hosts.yaml")
    say("Next, by hand; as root, with open-iscsi, on a kernel that has iSCSI:")
    if not kept:
        for name in NAMES:
            config = os.path.relpath(CONFIG / f"{name}.yaml")
            say(f"   {story.arrayd} serve {config} &    # its state stays in state/{name}")
    say(f"   {story.arrayctl} --paths {paths} commands")
    say(f"   iscsiadm -m discovery -t sendtargets -p {address}")
    say(f"   iscsiadm -m node -T {target} -p {address} --login")
    say(f"   mkfs.ext4 {by_path}")
    say("docs/connect-linux.md, docs/connect-qemu.md, docs/arrayctl.md and docs/configuration.md say more.")


def demonstrate(keep: bool) -> int:
    """Shows it; the exit code."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="arrayd-demo-"))
    story = Story(ThreeArrays(folder, address))
    configured = str(configuration_of("primary")["iscsi"]["listen"][0])
    left_running = False
    try:
        shown = show(story)
        pids = " ".join(str(story.arrays[name].pid) for name in NAMES)
        if keep:
            story.step("The arrays are left running; stop them, and remove what they had, by")
            say(f"   $ kill {pids}; rm -r {folder}")
        else:
            story.step("Stopped as asked: initiators are told, volumes are synced")
            story.command("kill", *pids.split())
            for array in story.arrays.arrays.values():
                array.terminate()
        what_next(story, story.primary.addresses[0] if keep else configured, keep)
        if not shown:
            complain("no data was written: apt-get install qemu-utils qemu-block-extra, and run it again")
        elif not keep:
            say(f"Everything is stopped and removed, after {time.monotonic() - started:.0f} seconds.")
        left_running = keep
    except (DemoError, DaemonError, FuseError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        signals.heed()  # Ctrl-C ends the command that is running, too: that is no failure
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still in its buffer goes there
        reason, _, detail = str(error).partition("\n")
        print(detail or "".join(story.arrays[name].log_tail() for name in NAMES), file=sys.stderr)
        complain(f"FAILED, and everything is stopped: {reason}")
        return EXIT_FAILED
    finally:
        if not left_running:
            for array in story.arrays.arrays.values():
                with contextlib.suppress(DaemonError):  # it was killed then
                    array.stop()
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if shown else EXIT_NOT_SHOWN


def complain(text: str) -> None:
    """The one clear line about what went wrong."""
    print(f"scripts/demo: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    signals.note()
    sys.exit(demonstrate(sys.argv[1:] == ["--keep"]))
