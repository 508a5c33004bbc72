"""Writes that go on in the guest while a test takes away what they are written to, and whether they are there.

Each is 256 KiB to a file below /mnt, synced before the next; a write that fails ends it.
"""

from dataclasses import dataclass

from tests.lab.guest import Guest, Job

GOING_ON = 5
"""So many writes more show that it goes on."""
GOING_ON_TIMEOUT_S = 90.0

WRITES = """
set -e
n=0
while [ ! -e /tmp/enough ]; do
    n=$((n + 1))
    dd if=/dev/urandom of=/tmp/chunk bs=64k count=4 2>/dev/null
    dd if=/tmp/chunk of=/mnt/load$((n % 20)) bs=64k conv=fsync 2>/dev/null
    sha256sum </tmp/chunk >/tmp/sum.load$((n % 20))
    echo $n >/tmp/written.new; mv /tmp/written.new /tmp/written
done
"""
ALL_THERE = """
sync; echo 3 >/proc/sys/vm/drop_caches
for f in /mnt/load*; do sha256sum <$f | cmp - /tmp/sum.$(basename $f); done
"""
NO_ERRORS = "! dmesg | grep -iE 'EXT4-fs error|EXT4-fs warning|Buffer I/O|aborting journal|Remounting'"
"""That the file system met none; a path that was lost may have had some."""


@dataclass(frozen=True)
class Load:
    """Writes that go on."""

    guest: Guest
    job: Job

    @classmethod
    def start(cls, guest: Guest) -> "Load":
        """Starts to write to the file system at /mnt."""
        return cls(guest, guest.spawn(WRITES))

    def goes_on(self) -> None:
        """Waits until several more writes are synced. GuestError if that does not come."""
        written = int(self.guest.until("cat /tmp/written", GOING_ON_TIMEOUT_S))
        self.guest.until(f"test $(cat /tmp/written) -ge {written + GOING_ON}", GOING_ON_TIMEOUT_S)

    def end(self) -> None:
        """Ends it: no write may have failed, and what was written last to each file must be there."""
        self.goes_on()
        self.guest.check("touch /tmp/enough")
        answer = self.job.wait()
        assert answer.status == 0, answer.output
        self.guest.check(ALL_THERE)
