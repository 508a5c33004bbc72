"""A Linux guest in QEMU, driven from here: run a script in it, get its exit status and what it printed.

The scripts and answers go over a virtio-serial port of their own (init.sh holds the other end and says the form), so
that nothing is echoed and kernel messages, which go to the serial console, never mix with them. The guest reaches this
machine's loopback as ``HOST``, and by its second network card as ``OTHER_HOST``.

This machine's root file system is mounted read only at ``MACHINE`` (9p), so that what runs here runs there, too: Python
with its virtual environment, dash, coreutils. ``on_machine`` says how.
"""

import base64
import itertools
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.kernel import Kernel

HOST = "10.0.2.2"
"""This machine's loopback, seen from the guest."""
OTHER_HOST = "10.0.3.2"
"""The same by its second card, ``OTHER_CARD``: taken down, that card is a cable that was pulled."""
OTHER_CARD = "eth1"
MACHINE = "/machine"
WORK = "/run/work"
"""A folder for scripts that run on_machine; it has this path inside and outside of ``MACHINE``."""

BOOT_TIMEOUT_S = 90.0
RUN_TIMEOUT_S = 60.0
ANSWER_SLACK_S = 20.0
"""How much longer than a script itself its answer may take: a killed script's output still has to arrive."""
STOP_TIMEOUT_S = 10.0
MEMORY_MIB = 768
MAX_OUTPUT_BYTES = 16 << 20
RECEIVE_BYTES = 1 << 16
CONSOLE_TAIL_LINES = 40


class GuestError(Exception):
    """The guest does not boot, does not answer, or a script that must succeed did not."""


def on_machine(script: str, shell: str = "/bin/sh") -> str:
    """A script of the guest that runs this one in ``WORK``, by a shell and the programs of this machine."""
    return f"chroot {MACHINE} {shell} -c {shlex.quote(f'cd {WORK} || exit{chr(10)}{script}')}"


@dataclass(frozen=True)
class Job:
    """A script that runs on in the guest; ``name`` is where its output and exit status are kept."""

    guest: "Guest"
    name: str

    def running(self) -> bool:
        """Whether the script has not ended."""
        return self.guest.run(f"test ! -e {self.name}.rc").status == 0

    def wait(self, timeout: float = RUN_TIMEOUT_S) -> "Answer":
        """The script's answer, once it has ended; GuestError when ``timeout`` seconds pass first."""
        script = f"while [ ! -e {self.name}.rc ]; do sleep 0.1; done; cat {self.name}.out; exit $(cat {self.name}.rc)"
        return self.guest.run(script, timeout)

    def output(self) -> str:
        """What the script has printed so far."""
        return self.guest.check(f"cat {self.name}.out")


@dataclass(frozen=True)
class Answer:
    """How a script ended: ``status`` as its shell exited (137 when out of time), ``output`` with stderr in it."""

    status: int
    output: str


class Guest:
    """One running virtual machine. A context manager: it is stopped at the end, whatever happened."""

    def __init__(self, kernel: Kernel, initramfs: bytes) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="arrayd-guest-"))
        self._console = self._folder / "console"
        self._ids = itertools.count(1)
        self._received = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._port: socket.socket | None = None
        image = self._folder / "initramfs"
        image.write_bytes(initramfs)
        address = str(self._folder / "port")
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(address)
                listener.listen(1)
                listener.settimeout(BOOT_TIMEOUT_S)
                with self._console.with_name("qemu").open("wb") as log:
                    self._process = subprocess.Popen(
                        self._command(kernel, image, address), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
                self._port, _ = listener.accept()
            self._port.setblocking(False)
            if self._receive_line(time.monotonic() + BOOT_TIMEOUT_S) != "ready":
                raise GuestError("the guest did not say ready" + self._tail())
        except BaseException:
            self.stop()
            raise

    def _command(self, kernel: Kernel, image: Path, address: str) -> list[str]:
        # kvm hangs at boot on some machines, and tcg is quick enough for what the tests do: quicker with a processor
        # that has little, of which it has less to do by hand.
        return [
            "qemu-system-x86_64",
            *("-accel", "tcg", "-cpu", "qemu64", "-m", str(MEMORY_MIB)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", str(kernel.image), "-initrd", str(image)),
            *("-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on nokaslr"),
            *("-serial", f"file:{self._console}"),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
            *("-netdev", "user,id=other,net=10.0.3.0/24", "-device", "virtio-net-pci,netdev=other,romfile="),
            *("-virtfs", "local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=port,path={address}"),
            *("-device", "virtserialport,chardev=port,name=arrayd.lab"),
        ]

    def run(self, script: str, timeout: float = RUN_TIMEOUT_S) -> Answer:
        """Run a shell script in the guest, at most ``timeout`` seconds, and return how it ended.

        Raises GuestError when the guest itself does not answer; it is of no use from then on.
        """
        number = str(next(self._ids))
        encoded = base64.b64encode(script.encode()).decode()
        deadline = time.monotonic() + timeout + ANSWER_SLACK_S
        self._send(f"{number} {timeout:.0f} {encoded}\n".encode(), deadline)
        line = self._receive_line(deadline)
        answered, status, length = line.split()
        if answered != number or int(length) > MAX_OUTPUT_BYTES:
            raise GuestError(f"the guest answered {line!r} to script {number}" + self._tail())
        output = self._receive(int(length), deadline)
        return Answer(int(status), output.decode(errors="replace"))

    def check(self, script: str, timeout: float = RUN_TIMEOUT_S) -> str:
        """Run a script that must succeed, every command of it, and return what it printed without the last newline."""
        answer = self.run(f"set -e\n{script}", timeout)
        if answer.status != 0:
            raise GuestError(f"status {answer.status} from\n{script}\n{answer.output}" + self._tail())
        return answer.output.rstrip("\n")

    def spawn(self, script: str) -> Job:
        """Start a script in the guest and leave it running."""
        job = Job(self, f"/tmp/job{next(self._ids)}")
        quoted = shlex.quote(script)
        self.check(f"(sh -c {quoted} >{job.name}.out 2>&1 </dev/null; echo $? >{job.name}.tmp; "
                   f"mv {job.name}.tmp {job.name}.rc) >/dev/null 2>&1 &")  # fmt: skip
        return job

    def until(self, condition: str, timeout: float = RUN_TIMEOUT_S) -> str:
        """Wait until the script ``condition`` succeeds in the guest, and return what it printed then."""
        deadline = time.monotonic() + timeout
        while True:
            answer = self.run(condition, timeout)
            if answer.status == 0:
                return answer.output.rstrip("\n")
            if time.monotonic() > deadline:
                raise GuestError(f"not in {timeout:.0f} s: {condition}\n{answer.output}" + self._tail())
            self.run("sleep 0.2")

    @property
    def alive(self) -> bool:
        """Whether the virtual machine runs and its last answer came."""
        return self._process is not None and self._process.poll() is None and self._port is not None

    def stop(self) -> None:
        """End the virtual machine at once and remove what it left; harmless when repeated."""
        self._hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _hang_up(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    def _tail(self) -> str:
        lines: list[str] = []
        for log in (self._console.with_name("qemu"), self._console):
            if log.exists():
                lines += log.read_text(errors="replace").splitlines()[-CONSOLE_TAIL_LINES:]
        return "\n--- console of the guest\n" + "\n".join(lines)

    def _send(self, content: bytes, deadline: float) -> None:
        unsent = memoryview(content)
        while unsent:
            unsent = unsent[self._wait(deadline, for_output=True).send(unsent) :]

    def _receive_line(self, deadline: float) -> str:
        while (end := self._received.find(b"\n")) < 0:
            self._receive_more(deadline)
        line = self._received[:end].decode(errors="replace")
        del self._received[: end + 1]
        return line

    def _receive(self, length: int, deadline: float) -> bytes:
        while len(self._received) < length:
            self._receive_more(deadline)
        content = bytes(self._received[:length])
        del self._received[:length]
        return content

    def _receive_more(self, deadline: float) -> None:
        received = self._wait(deadline, for_output=False).recv(RECEIVE_BYTES)
        if not received:
            self._hang_up()
            raise GuestError("the guest went down" + self._tail())
        self._received += received

    def _wait(self, deadline: float, *, for_output: bool) -> socket.socket:
        if self._port is None:
            raise GuestError("the guest is gone" + self._tail())
        wanted = [self._port]
        left = max(0.0, deadline - time.monotonic())
        readable, writable, _ = select.select([] if for_output else wanted, wanted if for_output else [], [], left)
        if not readable and not writable:
            self._hang_up()
            raise GuestError("the guest does not answer" + self._tail())
        return self._port
