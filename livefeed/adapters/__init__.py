"""I/O that both sides share: NATS, Postgres, tokens, telemetry, embedded servers."""
