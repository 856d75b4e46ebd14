"""The contracts and decisions of livefeed: a durable, gap-free feed on NATS JetStream and Postgres.

The modules directly in this package decide and never do I/O: time, randomness and ids are
arguments. What talks to a server stands in `adapters`, what a person types in `cli`.
"""

__version__ = "0.1.0"
