"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import shared
import worker


def modules(package: ModuleType) -> list[str]:
    return [m.name for m in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]


@pytest.mark.parametrize("name", [*modules(shared), *modules(worker)])
def test_examples_are_true(name: str) -> None:
    if not name.endswith(".__main__"):
        assert doctest.testmod(importlib.import_module(name)).failed == 0
