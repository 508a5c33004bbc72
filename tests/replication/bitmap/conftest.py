"""Folders on a real disk for all tests of bitmaps."""

from tests.lab.disk import disk

__all__ = ["disk"]
