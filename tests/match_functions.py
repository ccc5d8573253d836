"""Match functions as a studio might write them, and as it had better not."""

import itertools
import time
from collections.abc import Iterator

import numpy as np

from matchmaker.evaluator import PoolView


def by_clan(pool: PoolView, now_s: float) -> Iterator[list[list[int]]]:
    """Two of different clans."""
    print("this goes to standard error")
    clans = pool.value("clan")
    left = list(range(len(pool)))
    while left:
        one = left.pop(0)
        other = next((index for index in left if clans[index] != clans[one]), None)
        if other is not None:
            left.remove(other)
            yield [[one], [other]]


def raises(pool: PoolView, now_s: float) -> list[list[list[int]]]:
    raise KeyError("rating")


def hangs(pool: PoolView, now_s: float) -> list[list[list[int]]]:
    while True:
        time.sleep(0.01)


def twice(pool: PoolView, now_s: float) -> list[list[list[int]]]:
    """The same ticket in two matches, in one match twice, tickets that are none, and nonsense."""
    return [
        [[0], [1]],
        [[0], [2]],
        [[3], [3]],
        [[99], [1]],
        [[-1], [2]],
        [["x"], [1]],
        7,
        [[3]],
        [np.array([4]), np.array([5])],
    ]  # type: ignore[list-item]


def endless(pool: PoolView, now_s: float) -> Iterator[list[list[int]]]:
    while True:
        yield [[0], [1]]


def eats(pool: PoolView, now_s: float) -> list[list[list[int]]]:
    """With more than one ticket it takes whatever memory there is."""
    eaten = []
    while len(pool) > 1:
        eaten.append(np.ones(1 << 20))
    return []


def spoils(pool: PoolView, now_s: float) -> list[list[list[int]]]:
    pool.age_s[0] = 1e9
    return []


def hangs_in_c(pool: PoolView, now_s: float) -> list[list[list[int]]]:
    """With more than one ticket it never comes back, and no signal reaches it."""
    return [] if len(pool) < 2 else [[[sum(itertools.repeat(0))]]]
