"""Fixtures for every test."""

from collections.abc import Iterator

import pytest

from tests.servers import Servers, ServersUnavailableError, running_servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Real servers, started when the first test asks; where there are none, the run ends with the reason."""
    try:
        with running_servers() as running:
            yield running
    except ServersUnavailableError as reason:
        pytest.exit(str(reason), returncode=1)
