"""Fixtures for every test."""

import os
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import Servers, ServersUnavailableError, running_servers

LONGEST: Final = (
    "test_dead_letters",
    "test_faults",
    "test_money",
    "test_properties",
    "test_restore",
    "test_operator_api",
    "test_cluster",
)
"""The files that take longest. They begin first, so that in the end none of them is waited for alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and leave the order as it is otherwise."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Real servers, started when the first test asks; where there are none, the run ends with the reason."""
    try:
        with running_servers() as running:
            yield running
    except ServersUnavailableError as reason:
        pytest.exit(str(reason), returncode=1)


# The same examples in every run, so that a failure can be repeated; `thorough` looks for new ones, for long.
# No clock decides: a busy machine is not a slow test.
_untimed = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", _untimed, derandomize=True)
settings.register_profile("thorough", _untimed, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
