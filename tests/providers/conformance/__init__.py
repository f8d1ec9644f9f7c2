"""What every provider certifies before it goes live, asked of each of ours in its own words.

A provider's test module subclasses `Conformance` and names its dialect. Each test says what a user would
lose, and looks at the exact reply and at the books.
"""

from tests.providers.conformance.again import AsksAgain
from tests.providers.conformance.once import PaysOnce
from tests.providers.conformance.paid import PaysWins
from tests.providers.conformance.refused import RefusesOthers


class Conformance(PaysWins, PaysOnce, RefusesOthers, AsksAgain):
    """All of it."""
