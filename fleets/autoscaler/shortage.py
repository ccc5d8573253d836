"""
How many warm rooms keep the share of matches that meet a cold start below a declared chance.

Pure probability. Over the time that a new server takes, N matches begin and D sessions end, whose rooms are used again. With W warm rooms,
E[(N - D - W)+] matches find none; divided by E[N] that is the share of matches with a cold start. Counts are small in small fleets, so their
distributions are summed exactly (N negative binomial, D binomial); large ones are normal to a good approximation.
Source: the loss function of inventory theory (fill rate of a base-stock policy), e.g. Zipkin, Foundations of Inventory Management, ch. 6.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fleets.autoscaler.forecast import Forecast

_EXACT_UP_TO = 100.0
"""Mean count up to which distributions are summed."""
_NOBODY = 1e-9
"""A mean count that is none."""
_SEARCH_STEPS = 60


def warm_rooms(arrivals: Forecast, releases: Forecast, chance: float) -> int:
    """
    Find the smallest number of warm rooms with which at most `chance` of the matches meet a cold start.

    Args:
        arrivals: matches that begin until a server ordered now is Ready.
        releases: rooms that come free in the same time; its variance below its mean is that of a binomial.
        chance: 0 to 1, of a match.
    """
    if arrivals.mean < _NOBODY:
        return 0
    if arrivals.mean + releases.mean > _EXACT_UP_TO:
        return _normal(arrivals, releases, chance)
    return _exact(arrivals, releases, chance)


def _normal(arrivals: Forecast, releases: Forecast, chance: float) -> int:
    mean = arrivals.mean - releases.mean
    deviation = math.sqrt(arrivals.variance + releases.variance)
    allowed = chance * arrivals.mean / deviation
    low, high = -40.0, 40.0
    for _ in range(_SEARCH_STEPS):
        middle = (low + high) / 2
        if _unit_loss(middle) > allowed:
            low = middle
        else:
            high = middle
    return max(0, math.ceil(mean + high * deviation - 1e-9))


def _unit_loss(z: float) -> float:
    """E[(Z - z)+] of a standard normal Z."""
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return density - z * 0.5 * math.erfc(z / math.sqrt(2))


def _exact(arrivals: Forecast, releases: Forecast, chance: float) -> int:
    begin = _negative_binomial(arrivals.mean, arrivals.variance)
    end = _binomial(releases.mean, releases.variance)
    # net[i] is the probability of N - D = i - (len(end) - 1).
    net = np.convolve(begin, end[::-1])
    # The loss at W is the sum of all tails beyond it: E[(X - W)+] = sum of P(X > k) over k >= W.
    tails = np.cumsum(net[::-1])[::-1]
    loss = np.cumsum(tails[::-1])[::-1]
    zero = len(end) - 1
    # loss[zero + W + 1] = E[(X - W)+]
    beyond = np.append(loss[zero + 1 :], 0.0)
    return int(np.argmax(beyond <= chance * arrivals.mean))


def _negative_binomial(mean: float, variance: float) -> NDArray[np.float64]:
    """Probabilities of 0, 1, 2 …, so far that what is left out is below 1e-12; Poisson where the variance is the mean."""
    spread = max(variance, mean * (1 + 1e-9))
    size = mean**2 / (spread - mean)
    share = mean / spread
    most = math.ceil(mean + 12 * math.sqrt(spread) + 30)
    k = np.arange(1, most)
    steps = np.log(size + k - 1) - np.log(k) + math.log1p(-share) if share < 1 else np.zeros(most - 1)
    logs = np.concatenate(([size * math.log(share)], size * math.log(share) + np.cumsum(steps)))
    return _normed(logs)


def _binomial(mean: float, variance: float) -> NDArray[np.float64]:
    """Probabilities of 0, 1, 2 … of the binomial with (about) this mean and variance."""
    if mean <= 0:
        return np.ones(1)
    share = min(max(1 - variance / mean, 1e-6), 1 - 1e-6)
    trials = max(1, min(round(mean / share), math.ceil(mean + 12 * math.sqrt(mean) + 30) * 4))
    share = min(mean / trials, 1 - 1e-6)
    k = np.arange(1, trials + 1)
    steps = np.log(trials - k + 1) - np.log(k) + math.log(share) - math.log1p(-share)
    logs = np.concatenate(([trials * math.log1p(-share)], trials * math.log1p(-share) + np.cumsum(steps)))
    return _normed(logs)


def _normed(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = np.exp(logs)
    probabilities /= probabilities.sum()
    return probabilities
