"""What a host's tool takes from its machine besides devices and sockets: time, random bytes, waiting. A door."""

from __future__ import annotations

import os
import random
import time

monotonic = time.monotonic
"""Seconds that only go forward."""
time_ns = time.time_ns
"""Nanoseconds since 1970."""
pause = time.sleep
"""Waits so many seconds."""
random_bytes = os.urandom
choose = random.choice
"""One of several, at random."""


def remaining(deadline: float) -> float:
    """Seconds until `deadline` of `monotonic`, never less than 0."""
    return max(0.0, deadline - monotonic())
