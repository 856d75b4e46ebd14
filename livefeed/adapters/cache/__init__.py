"""The caches of feed snapshots: in memory, shared in NATS, and how they work together."""
