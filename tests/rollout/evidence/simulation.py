"""Many rollouts at once, through the functions that the states themselves use."""

from __future__ import annotations

import numpy as np
from scipy import stats

from dwcp_ml.rollout.evidence import error_rate as e
from tests.rollout.evidence import arrays

REQUESTS = 6000  # 100 a second, windows of 60 s
SHARES = np.repeat([0.01, 0.05, 0.25, 0.5], 20)


def draws(rng, runs, stable, candidate, shares=SHARES, requests=REQUESTS):
    """n_c, e_c, n_s, e_s, shape (4, runs, windows); rates broadcast to (runs, windows)."""
    size = (runs, len(shares))
    n_c = np.broadcast_to(np.rint(requests * shares).astype(int), size)
    n_s = requests - n_c
    e_c = rng.binomial(n_c, np.broadcast_to(candidate, size))
    e_s = rng.binomial(n_s, np.broadcast_to(stable, size))
    return np.stack([n_c, e_c, n_s, e_s]).astype(float)


def merged(rng, counts, lost=0.4):
    """The same counts when some reconciliations were lost: those windows come with a later one."""
    kept = rng.random(counts.shape[1:]) >= lost
    kept[:, -1] = True
    out, waiting = np.zeros_like(counts), np.zeros(counts.shape[:2])
    for window in range(counts.shape[2]):
        waiting = waiting + counts[:, :, window]
        out[:, :, window] = np.where(kept[:, window], waiting, 0.0)
        waiting = np.where(kept[:, window], 0.0, waiting)
    return out


def log_evidence(counts, ratios=arrays.log_ratios, *, capped=True, reserved=True):
    """log E after each window, shape (runs, windows).

    ``capped`` is E of ``error_rate``, with a largest factor; without ``reserved`` it is the plain
    mean of the products. Windows in which an arm has no requests are no blocks.
    """
    _, runs, windows = counts.shape
    past_n, past_e = np.zeros(runs), np.zeros(runs)
    sums, out = 0.0, np.empty((runs, windows))
    capital, blocks = 0.0, np.zeros(runs, int)
    reserve = np.array([e.reserve(number) for number in range(windows + 1)])
    for window in range(windows):
        n_c, e_c, n_s, e_s = counts[:, :, window]
        rate = (past_e + e.PRIOR_ERRORS) / (past_n + e.PRIOR_REQUESTS)
        logs = ratios(n_c, e_c, n_s, e_s, rate)
        sums = sums + logs
        is_block = (n_c > 0) & (n_s > 0)
        invested = np.where(is_block, reserve[blocks] - reserve[np.minimum(blocks + 1, windows)], 0)
        blocks = blocks + is_block
        largest = 3.0 if capped else np.inf
        factor = np.minimum(np.exp(np.minimum(logs, 600.0)), largest)
        with np.errstate(over="ignore"):
            capital = np.minimum((capital + invested[:, None]) * factor, 1e250)
        past_n, past_e = past_n + n_s, past_e + e_s
        fade = np.minimum(1.0, e.MEMORY_REQUESTS / np.maximum(past_n, 1.0))
        past_n, past_e = past_n * fade, past_e * fade
        if reserved:
            out[:, window] = np.log(np.mean(capital, axis=1) + reserve[blocks])
            continue
        top = sums.max(axis=1)
        out[:, window] = top + np.log(np.exp(sums - top[:, None]).mean(axis=1))
    return out


def ever(log_e, alpha):
    """Which runs were decided at any reconciliation."""
    return (log_e >= -np.log(alpha)).any(axis=1)


def first(log_e, alpha):
    """The window, from 1, of the decision; beyond the last where there was none."""
    decided = log_e >= -np.log(alpha)
    return np.where(decided.any(axis=1), decided.argmax(axis=1) + 1, log_e.shape[1] + 1)


def assert_at_most(wrong, alpha):
    """The share of wrong decisions is not above alpha, as far as this number of runs can tell."""
    test = stats.binomtest(int(wrong.sum()), len(wrong), alpha, alternative="greater")
    assert test.pvalue > 1e-3, f"{wrong.mean():.3f} of {len(wrong)} runs, {alpha} is allowed"
