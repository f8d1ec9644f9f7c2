"""Connections and their door against the parser alone. `python -m tests.fuzz` takes more inputs."""

import pytest

from tests.fuzz.__main__ import compare

pytestmark = pytest.mark.slow

INPUTS = 100_000


async def test_connection_and_door_see_what_the_parser_sees() -> None:
    comparison = await compare(INPUTS, seed=17)
    assert comparison.at_door > INPUTS / 10
