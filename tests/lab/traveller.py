"""A Python program of this checkout, taken into the guest: the interpreter, and every file that the program imports."""

from __future__ import annotations

import http.server
import io
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.lab.daemon import CHECKOUT
from tests.lab.guest import HOST, Guest

LISTING_TIMEOUT_S = 60.0
UNPACK_TIMEOUT_S = 120.0

LIST = """\
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for module in list(sys.modules.values()):
    for file in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
        if file:
            print(file)
"""
HOME = "/opt/traveller"
"""Where it lives in the guest: tests may clear /tmp, and a checkout may be there."""
ALWAYS = ("encodings.idna", "traceback", "_strptime", "click.shell_completion")
"""Modules that are imported when they are needed, not before."""


def install(guest: Guest, *modules: str) -> None:
    """Puts a `python3` into the guest that can import `modules`; what is there already stays."""
    if guest.run("test -e /bin/python3").status == 0:
        return
    archive, folders = _pack(modules)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            self.wfile.write(archive)

        def log_message(self, format: str, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://{HOST}:{server.server_address[1]}/"
            guest.check(f"mkdir -p {HOME} && wget -q -O - {url} | tar -x -C {HOME}", UNPACK_TIMEOUT_S)
        finally:
            server.shutdown()
            thread.join()
    site = [each for each in sys.path if "site-packages" in each]
    variables = {
        "PYTHONHOME": HOME + sys.base_prefix,
        "PYTHONPATH": ":".join(HOME + each for each in dict.fromkeys((str(CHECKOUT), *site))),
        "LD_LIBRARY_PATH": ":".join(sorted(HOME + folder for folder in folders)),
    }
    settings = " ".join(f"{name}={value}" for name, value in variables.items())
    script = f'#!/bin/sh\n{settings} exec {HOME}{_interpreter()} "$@"\n'
    guest.check(f"cat >/bin/python3 <<'EOF'\n{script}EOF\nchmod +x /bin/python3")


def _interpreter() -> Path:
    return Path(sys.executable).resolve()


def _pack(modules: Sequence[str]) -> tuple[bytes, set[str]]:
    """A tar archive of all that `modules` need, under the paths that it has here, and the folders of its libraries."""
    listing = subprocess.run(
        [sys.executable, "-c", LIST, *modules, *ALWAYS],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=LISTING_TIMEOUT_S, check=True,
    ).stdout  # fmt: skip
    files = {_interpreter(), *(Path(line) for line in listing.splitlines())}
    libraries = _libraries([file for file in files if file.suffix == ".so" or file == _interpreter()])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        for file in sorted(files | libraries):
            if file.exists():
                archive.add(file)
    return packed.getvalue(), {str(library.parent) for library in libraries}


def _libraries(binaries: list[Path]) -> set[Path]:
    listing = subprocess.run(
        ["ldd", *map(str, binaries)], capture_output=True, text=True, timeout=LISTING_TIMEOUT_S, check=False
    ).stdout
    return {Path(path) for path in re.findall(r"(/\S+\.so\S*) \(0x", listing)}
