"""The reference is what the code says, and says something of everything."""

from pathlib import Path

import pytest

from shared.settings import BrokerSettings
from tests.support.reference import FOLDER, PAGES
from tests.support.reference.attributes import description
from tests.support.reference.markdown import UndescribedError, described


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_reference_is_what_the_code_says(path: Path) -> None:
    assert path.read_text() == PAGES[path](), "run `make docs`"


def test_every_page_of_the_reference_is_made_from_the_code() -> None:
    assert set(FOLDER.iterdir()) == set(PAGES)


def test_description_is_the_text_below_an_attribute_of_a_class_or_its_base() -> None:
    class Own(BrokerSettings):
        """A table with a field of its own."""

        undescribed: int = 0

    assert description(BrokerSettings, "shards").startswith("Queues that carry credits.")
    assert description(Own, "shards") == description(BrokerSettings, "shards")
    with pytest.raises(UndescribedError, match="x has no description"):
        described(description(BrokerSettings, "undescribed"), "x")
