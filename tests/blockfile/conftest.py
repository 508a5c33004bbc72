"""Files on a real disk for all tests of block data."""

from tests.lab.disk import disk, file_size_limit, held, open_file, threads

__all__ = ["disk", "file_size_limit", "held", "open_file", "threads"]
