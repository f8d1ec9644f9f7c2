"""The outcome cache in Redis: it spares the database repeats, and is never believed without a proof."""
