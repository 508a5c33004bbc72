"""Which machine the figures are of."""

import os
import platform
import subprocess
from pathlib import Path


def processor_model() -> str:
    """The processor as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine()


def type_of_file_system(path: Path) -> str:
    """The type of the file system that ``path`` is on, from the mount with the longest matching prefix."""
    best, kind = Path("/"), "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, this_kind = line.split()[:3]
        place = Path(mounted.replace("\\040", " "))
        if path.resolve().is_relative_to(place) and len(place.parts) >= len(best.parts):
            best, kind = place, this_kind
    return kind


def version_of_tgt(tgtd: Path) -> str:
    """As it tells it."""
    return subprocess.run([tgtd, "-V"], capture_output=True, text=True, check=True).stdout.strip()


def description(tgtd: Path, folders: dict[str, Path]) -> dict[str, str]:
    """What the report names: one line each."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": f"{processor_model()}, {len(os.sched_getaffinity(0))} cores usable, {memory:.0f} GiB of memory",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "tgt": version_of_tgt(tgtd),
        **{name: f"{folder} ({type_of_file_system(folder)})" for name, folder in folders.items()},
    }
