"""When a row is decided: the median of paired ratios, its interval by the sign test, and the verdict on a claim.

The runs of a pair follow each other, so what disturbs the machine for longer than a pair falls out of their ratio. The
interval is made of order statistics: no shape of the distribution is assumed. Looking again after more pairs, until
the interval decides, would find a decision by luck too often; so there are only a few planned looks (``LOOKS``), and
each has its share of the error (Bonferroni): all together decide a claim wrongly with probability ``ERROR`` at most.
"""

import enum
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

ERROR = 0.05
LOOKS = (8, 12, 16, 24)
"""Numbers of pairs after which the interval is looked at; after the last the row stays open."""
CONFIDENCE_A_LOOK = 1 - ERROR / len(LOOKS)


class Verdict(enum.Enum):
    """What an interval says of a claim."""

    SHOWN = "yes"
    MISSED = "NO"
    OPEN = "open"
    UNCLAIMED = "-"


@dataclass(frozen=True)
class Estimate:
    """The median of some ratios; ``low`` and ``high`` bound it, or are None where there are too few of them."""

    median: float
    low: float | None
    high: float | None
    count: int

    def verdict(self, at_least: float | None) -> Verdict:
        """Whether the true median is ``at_least`` so much."""
        if at_least is None:
            return Verdict.UNCLAIMED
        if self.low is None or self.high is None:
            return Verdict.OPEN
        if self.low >= at_least:
            return Verdict.SHOWN
        return Verdict.MISSED if self.high < at_least else Verdict.OPEN


def rank_of_bound(count: int, confidence: float) -> int | None:
    """The largest k for which the k-th smallest and k-th largest of ``count`` values hold the median between them.

    P(the median lies outside) = 2 * P(Binomial(count, 1/2) < k), which must be at most 1 - ``confidence``. None when
    even the smallest and the largest (k = 1) are not enough.
    """
    outside, rank = 0.0, 0
    while rank < count // 2:
        outside += 2 * math.comb(count, rank) / 2**count
        if outside > 1 - confidence:
            break
        rank += 1
    return rank or None


def estimate(ratios: Sequence[float], confidence: float = CONFIDENCE_A_LOOK) -> Estimate:
    """The median of ``ratios`` with its interval."""
    ordered = sorted(ratios)
    rank = rank_of_bound(len(ordered), confidence)
    low, high = (None, None) if rank is None else (ordered[rank - 1], ordered[-rank])
    return Estimate(statistics.median(ordered), low, high, len(ordered))
