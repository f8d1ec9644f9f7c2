"""Turns a failed publishing into the fault of the call whose message it was."""

from aiormq.exceptions import DeliveryError, PublishError

from shared.broker.connection import BROKER_FAULTS
from shared.errors import LedgerUnavailable, ShardMissing


def as_unavailable(error: BaseException) -> LedgerUnavailable:
    """Return the fault of a call whose message the broker refused, returned as unroutable, or lost."""
    if isinstance(error, PublishError):
        return ShardMissing("the broker has no queue for this shard")
    known = isinstance(error, (DeliveryError, *BROKER_FAULTS))
    reason = "the broker refused the message" if known else f"publishing failed: {type(error).__name__}"
    return LedgerUnavailable(reason)
