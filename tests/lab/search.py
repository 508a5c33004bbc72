"""How far hypothesis searches: less far in the quick suite."""

import os

QUICK_SHARE = 4


def examples(count: int) -> int:
    """So many examples, or a part of them under `scripts/test --quick` (which sets ARRAYD_QUICK)."""
    return count // QUICK_SHARE if os.environ.get("ARRAYD_QUICK") == "1" else count
