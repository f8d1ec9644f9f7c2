"""The conformance suite: what providers certify before they go live, for each provider in its own dialect.

A provider's test module subclasses `Conformance` and names its dialect. Each test is named after what a user would
lose, and checks the exact reply and the ledger.
"""

from tests.providers.conformance.again import AsksAgain
from tests.providers.conformance.once import PaysOnce
from tests.providers.conformance.paid import PaysWins
from tests.providers.conformance.refused import RefusesOthers


class Conformance(PaysWins, PaysOnce, RefusesOthers, AsksAgain):
    """The whole suite."""
