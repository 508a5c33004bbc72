"""Files on a real disk for all tests of volumes."""

from tests.lab.disk import disk, held, open_file, threads

__all__ = ["disk", "held", "open_file", "threads"]
