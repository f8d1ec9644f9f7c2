"""What is attacked: a gateway by itself, or a whole system by somebody who has the broker's password."""

from collections.abc import AsyncIterator

import pytest

from tests.support.attacked import attacked_system
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.servers import Servers
from tests.support.stranger import Stranger, stranger_to
from tests.support.system import System


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    """One gateway for all attacks of a file; a file that wants other settings has its own."""
    async with gateway_process(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
async def system(servers: Servers) -> AsyncIterator[System]:
    """One system for all attacks of a file."""
    async with attacked_system(servers) as started:
        yield started


@pytest.fixture
async def stranger(system: System) -> AsyncIterator[Stranger]:
    """Somebody who has the broker's password, and overhears every batch."""
    async with stranger_to(system) as connected:
        yield connected
