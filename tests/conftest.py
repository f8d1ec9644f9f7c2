"""Fixtures for every test."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.servers import Servers, ServersUnavailableError, running_servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Real servers, started when the first test asks; where there are none, the run ends with the reason."""
    try:
        with running_servers() as running:
            yield running
    except ServersUnavailableError as reason:
        pytest.exit(str(reason), returncode=1)


# The same examples in every run, so that a failure can be repeated; `thorough` looks for new ones, for long.
settings.register_profile("repeatable", derandomize=True, print_blob=True, deadline=None)
settings.register_profile("thorough", max_examples=10_000, print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
