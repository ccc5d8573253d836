"""The fuzzers' targets on their seeds, on seeded mutations of them, and on every finding of the past."""

import random
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
MUTATIONS = 150


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, repeat, insert: what a fuzzer does, without its guide."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(changed))
        match rng.randrange(5):
            case 0 if changed:
                changed[min(at, len(changed) - 1)] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case 2:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                changed[at:at] = changed[at : at + rng.randint(1, 32)]
            case _ if changed:
                changed[min(at, len(changed) - 1)] = rng.choice((0, 1, 127, 128, 255))
            case _:
                pass
    return bytes(changed)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_any_bytes(name: str) -> None:
    """Seeds, their mutations and past findings: handled or refused, never anything else."""
    target = TARGETS[name]
    rng = random.Random(name)
    for seed in target.seeds:
        target.run(seed)
    for found in sorted(CORPUS.glob(f"{name}-*")):
        target.run(found.read_bytes())
    for _ in range(MUTATIONS):
        data = mutate(rng, rng.choice(target.seeds))
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"{name}: {data.hex()}") from error
