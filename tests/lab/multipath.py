"""dm-multipath in the guest. A host has it from `start` on: before, the rule of udev that asks it about every disk is
masked, which on an emulated processor is a quarter of what udev does."""

from tests.lab.guest import Guest

DISK = "/dev/mapper/mpatha"
"""The one disk that the paths lead to."""
PATH_TIMEOUT_S = 60.0
MASK = "/run/udev/rules.d/60-multipath.rules"
QUICK = {"node.session.timeo.replacement_timeout": "2"}
"""Seconds after which a session that was lost gives its commands back to dm-multipath."""

STOP = f"""
if pidof multipathd >/dev/null; then multipath -F; killall multipathd; fi
rm -f /etc/multipath/bindings /etc/multipath/wwids
ln -sf /dev/null {MASK}
"""


def start(guest: Guest) -> None:
    """As its package does at boot: to be called before the initiator logs in."""
    guest.check(f"rm {MASK}; udevadm control --reload; multipathd")


def stop(guest: Guest) -> None:
    """Lets go of the disk, which nothing uses any more."""
    guest.check("multipath -F && killall multipathd")


def wait_for_paths(guest: Guest, *expected: str) -> None:
    """Waits until the disk has these paths, each as `path` says it."""
    rows = "multipathd show paths raw format '%d %p %t'"
    guest.until(
        f'test -b {DISK} && test "$({rows} | sort)" = "$(printf \'%s\\n\' {" ".join(map(repr, expected))} | sort)"'
        f" || {{ {rows}; multipath -ll; false; }}",
        PATH_TIMEOUT_S,
    )


def wait_for_active_paths(guest: Guest, count: int) -> None:
    """Waits until so many paths of the disk can be used."""
    paths = "multipathd show paths format '%d %t %T' | grep -cw 'active ready'"
    guest.until(f"test -b {DISK} && test $({paths}) = {count}", PATH_TIMEOUT_S)


def path(disk: str, priority: int, state: str = "active") -> str:
    """One for wait_for_paths: which disk of the initiator, the priority that alua gives it, active or failed."""
    return f"{disk.removeprefix('/dev/')} {priority} {state}"
