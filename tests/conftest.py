"""Fixtures for every test."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import NAMES, Server, Servers, ServersUnavailableError, own_servers
from tests.support.servers.shared import shared_servers

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
    """Put the longest files first, and leave the order as it is otherwise; mark the tests that need servers."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))
    for item in items:
        if _needs_servers(item):
            item.add_marker("servers")


def _needs_servers(item: pytest.Item) -> bool:
    """Tell whether a test takes servers, be it only in this one of its variants."""
    assert isinstance(item, pytest.Function)
    variants = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return "servers" in item.fixturenames or "postgresql" in variants


@pytest.fixture(scope="session")
def servers_of_all(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Servers]:
    """The servers that all processes of the run share; where there are none, the run ends with the reason."""
    of_run = tmp_path_factory.getbasetemp()
    number = 0
    if hasattr(request.config, "workerinput"):
        of_run, number = of_run.parent, int(worker_id.removeprefix("gw"))
    try:
        with shared_servers(of_run / "servers", number) as shared:
            yield shared
    except ServersUnavailableError as reason:
        pytest.exit(str(reason), returncode=1)


@pytest.fixture(scope="session")
def server_of_own() -> Iterator[Callable[[str], Server]]:
    """Start servers that this process alone uses."""
    with own_servers() as start:
        yield start


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest) -> Servers:
    """The servers of all, save those that the file marks as its own since it stops or changes them."""
    mark = request.node.get_closest_marker("own_servers")
    names = mark.args if mark else ()
    own = {name: request.getfixturevalue("server_of_own")(name) for name in names}
    if len(own) == len(NAMES):
        return Servers(**own)
    of_all: Servers = request.getfixturevalue("servers_of_all")
    return dataclasses.replace(of_all, **own)


# The same examples in every run, so that a failure can be repeated; `thorough` looks for new ones, for long.
# No clock decides: a busy machine is not a slow test.
_untimed = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", _untimed, derandomize=True)
settings.register_profile("thorough", _untimed, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
