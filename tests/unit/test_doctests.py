"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import gateway
import shared
import worker

RUN_ON_IMPORT = "worker.database.migrations."
"""Alembic runs them, within a migration."""


MODULES = [
    module.name
    for package in (gateway, worker, shared)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.startswith(RUN_ON_IMPORT)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_of_every_folder_are_among_them() -> None:
    folders = {name.rpartition(".")[0] for name in MODULES}
    assert folders >= {"gateway.providers", "gateway.ledger_client", "worker.cli", "worker.operator"}
