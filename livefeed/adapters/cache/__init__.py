"""The caches of feed snapshots: in memory, shared in NATS or Redis, and how they work together."""
