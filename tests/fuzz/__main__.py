"""`python -m tests.fuzz [INPUTS] [SEED]`: connections of ours against the parser alone."""

import asyncio
import random
import sys
from typing import Final

from tests.fuzz.oracle import Comparison
from tests.fuzz.requests import packets

INPUTS: Final = 5_000_000
_REPORTED_EVERY: Final = 500_000
_TURN_INPUTS: Final = 10_000


async def compare(inputs: int, seed: int) -> Comparison:
    """Compare so many inputs, the same for a seed. Raises DifferenceError at the first."""
    comparison, chance = Comparison(), random.Random(seed)
    for number in range(1, inputs + 1):
        comparison.compare(packets(chance))
        if number % _TURN_INPUTS == 0:
            await asyncio.sleep(0)  # what connections have left to the loop to do would fill the memory
        if number % _REPORTED_EVERY == 0:
            print(f"{number} inputs, 0 differences", flush=True)  # noqa: T201
    return comparison


if __name__ == "__main__":
    inputs_wanted, seed_wanted = (*map(int, sys.argv[1:]), *(INPUTS, 1)[len(sys.argv) - 1 :])
    done = asyncio.run(compare(inputs_wanted, seed_wanted))
    print(f"{inputs_wanted} inputs, {done.at_door} requests answered at the door, 0 differences")  # noqa: T201
