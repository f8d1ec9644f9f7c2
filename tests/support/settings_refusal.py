"""What a start says that is refused for its settings."""

import pytest

from shared.errors import SettingsError
from shared.settings import load_settings


def refusal() -> str:
    """Return what `load_settings` refuses with: always one line."""
    with pytest.raises(SettingsError) as refused:
        load_settings()
    message = str(refused.value)
    assert "\n" not in message
    return message
