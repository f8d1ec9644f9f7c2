"""What tests of settings share: a place without anybody's own settings, and a file to write them to."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

WriteFile = Callable[[str], Path]


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
