"""The ledger's epoch: which copy of the books a cached outcome was posted in."""

from dataclasses import dataclass, field

from worker.database.schema import CACHE_KEY_BYTES


@dataclass(frozen=True, slots=True)
class Epoch:
    """A state of the books: its name is in every cache key, its key under every cached value."""

    name: str
    cache_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a key of another length: an empty one would make a MAC that anybody can compute."""
        if len(self.cache_key) != CACHE_KEY_BYTES:
            raise ValueError(f"a cache key has {CACHE_KEY_BYTES} bytes")
