"""What unit tests share: a loop for each, and a place without anybody's own settings."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_asyncio import is_async_test

WriteFile = Callable[[str], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test here a loop of its own: on a shared one, others still have log lines to write."""
    for item in items:
        is_here = Path(__file__).parent in item.path.parents
        if is_here and is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="function"), append=False)


@pytest.fixture
def clean_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith("CREDITS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WriteFile:
    """Write the settings file that CREDITS_CONFIG names."""

    def write(text: str) -> Path:
        path = tmp_path / "my.toml"
        path.write_text(text)
        monkeypatch.setenv("CREDITS_CONFIG", str(path))
        return path

    return write
