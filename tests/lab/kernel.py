"""The guest's kernel: Debian's own, fetched as a package and unpacked, never installed.

Kept in ``$XDG_CACHE_HOME/arrayd/lab/DIGEST/VERSION``: ``vmlinuz`` and, below ``lib/modules``, the modules of
``MODULES`` (whose digest names the folder) with what they depend on. A folder there is complete, because it is renamed
into place last. Remove it to fetch anew.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

METAPACKAGE = "linux-image-amd64"
FETCH_TIMEOUT_S = 240.0
DIGEST_LENGTH = 8
MODULES = (
    "virtio_pci",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "iscsi_tcp",
    "sd_mod",
    "sg",
    "ext4",
    "crc32c_generic",
    "crc32c_intel",
    "dm_multipath",
    "dm_service_time",
    "scsi_dh_alua",
    "9pnet_virtio",
    "9p",
)
"""Modules the guest loads at boot, in this order; crc32c serves both ext4 and the iSCSI digests."""


class KernelUnavailableError(Exception):
    """The machine has no cached kernel and could not fetch one; the text says why."""


@dataclass(frozen=True)
class Kernel:
    """A kernel ready to boot: ``root`` holds ``vmlinuz`` and ``lib/modules/<version>``."""

    root: Path

    @property
    def version(self) -> str:
        """The release as ``uname -r`` in the guest says it."""
        return self.root.name

    @property
    def image(self) -> Path:
        """The compressed kernel image."""
        return self.root / "vmlinuz"

    @property
    def modules(self) -> Path:
        """Folder with the modules and their ``modules.dep``."""
        return self.root / "lib" / "modules" / self.version


def cache_folder() -> Path:
    """Where kernels with just these modules are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    digest = hashlib.sha256(" ".join(MODULES).encode()).hexdigest()
    return Path(base) / "arrayd" / "lab" / digest[:DIGEST_LENGTH]


def obtain() -> Kernel:
    """The newest kernel in the cache; fetched first where there is none.

    Raises KernelUnavailableError when it cannot be fetched.
    """
    cached = sorted(cache_folder().glob("[0-9]*/vmlinuz"), key=lambda image: image.stat().st_mtime)
    if cached:
        return Kernel(cached[-1].parent)
    return _fetch()


def _fetch() -> Kernel:
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_folder()) as folder:
        work = Path(folder)
        depends = _run(["apt-cache", "depends", METAPACKAGE], work)
        package = re.search(r"Depends: (linux-image-(\S+))", depends)
        if not package:
            raise KernelUnavailableError(f"{METAPACKAGE} names no kernel package: run apt-get update")
        version = package.group(2)
        # As root apt would hand the download to another user, who cannot write here.
        _run(["apt-get", "-o", "APT::Sandbox::User=root", "download", package.group(1)], work)
        (archive,) = work.glob("linux-image-*.deb")
        _run(["dpkg", "-x", str(archive), "unpacked"], work)
        unpacked = work / "unpacked"
        _run(["busybox", "depmod", "-b", str(unpacked), version], work)
        kept = work / "kept"
        _keep_wanted(unpacked / "lib" / "modules" / version, kept / "lib" / "modules" / version)
        shutil.copy(unpacked / "boot" / f"vmlinuz-{version}", kept / "vmlinuz")
        destination = cache_folder() / version
        try:
            kept.rename(destination)
        except OSError:
            if not (destination / "vmlinuz").exists():  # else another run was quicker
                raise
    return Kernel(destination)


def _keep_wanted(source: Path, destination: Path) -> None:
    """Copy the modules of MODULES and all they depend on, with the lines of modules.dep that say so."""
    depends: dict[str, list[str]] = {}
    path_of: dict[str, str] = {}
    for line in (source / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        depends[path] = needed.split()
        path_of[Path(path).name.partition(".")[0].replace("-", "_")] = path
    wanted: set[str] = set()
    unseen = [path_of[name] for name in MODULES if name in path_of]  # a module missing here is built in
    while unseen:
        path = unseen.pop()
        if path not in wanted:
            wanted.add(path)
            unseen += depends[path]
    for path in wanted:
        (destination / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, destination / path)
    lines = [f"{path}: {' '.join(depends[path])}".rstrip() for path in sorted(wanted)]
    (destination / "modules.dep").write_text("\n".join(lines) + "\n")


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=True)
    except FileNotFoundError as missing:
        raise KernelUnavailableError(f"needs {command[0]}") from missing
    except subprocess.TimeoutExpired as late:
        raise KernelUnavailableError(f"{' '.join(command)} took more than {FETCH_TIMEOUT_S:.0f} s") from late
    except subprocess.CalledProcessError as failed:
        raise KernelUnavailableError(f"{' '.join(command)}: {failed.stderr.strip()}") from failed
    return done.stdout
