"""What the tests with parts from outside have in common: a real array in a process of its own."""

from tests.lab.fixtures import start_array

__all__ = ["start_array"]
