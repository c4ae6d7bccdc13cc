"""Whether a log's displays are random sets of a pool."""

from __future__ import annotations

import numpy as np
from scipy.stats import beta, binom, chi2

from fastgaum.arrays import IntArray
from fastgaum.logs.log import SessionLog

UNEVEN = 1e-3
"""p below which displays are no random sets"""
MISSED = 0.05
"""share of logs in which the test may miss an item that is shown too often"""
MOST_HIDDEN = 1.0
"""a test that passes an item shown twice as often as the others says nothing"""


def judge_evenness(log: SessionLog, pool: IntArray) -> tuple[str, float]:
    """Why a log's displays are no random sets of the pool, empty where they may be; and how far the
    rate of one item may be from the even rate, as a share, if its test is to find it in all but
    `MISSED` of such logs.

    A chi-squared test of all items and a binomial test of each, with Bonferroni's correction, share
    the p of `UNEVEN`."""
    k, m = np.diff(log.display_offsets).astype(np.float64), len(pool)
    n, rate = len(k), k.sum() / (len(k) * m)
    spread = float((k * (m - k)).sum()) / (m * max(m - 1.0, 1.0))
    if spread <= 0.0:
        return "", 0.0
    counts = np.bincount(log.items, minlength=log.n_items)[pool]
    p_of_all = chi2.sf(((counts - n * rate) ** 2).sum() / spread, m - 1)
    p_of_one = min(binom.sf(counts.max() - 1, n, rate), binom.cdf(counts.min(), n, rate))
    # the least and the largest count that pass, and rates whose counts are mostly beyond
    alpha = UNEVEN / (4 * m)
    least, most = binom.ppf(alpha, n, rate), binom.isf(alpha, n, rate)
    low = beta.ppf(MISSED, least, n - least + 1) if least > 0 else 0.0
    high = beta.isf(MISSED, most + 1, n - most) if most < n else 1.0
    hidden = float(max(high / rate - 1.0, 1.0 - low / rate))
    why, cure = "", "give logged propensities (--propensity)"
    if p_of_all < UNEVEN / 2 or p_of_one < alpha:
        why = (
            "displays are no random sets of the pool, which show each item about as often (p < "
            f"{UNEVEN:g}): {cure}, or the pool (--pool)"
        )
    elif hidden >= MOST_HIDDEN:
        why = (
            f"{n:,} events are too few to tell whether displays are random sets of the pool: an "
            f"item shown {100 * hidden:.0f} % more or less often may pass, below "
            f"{100 * MOST_HIDDEN:.0f} % is required: {cure}, or more events (--split all)"
        )
    return why, hidden
