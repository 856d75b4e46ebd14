"""Real servers from wheels, as children of this process: for `livefeed up` and for the tests.

They listen on the loopback address, keep what they acknowledged on disk, and die with their parent.
"""

from livefeed.adapters.embedded.nats_server import NatsCluster, NatsServer
from livefeed.adapters.embedded.postgres_server import PostgresReplica, PostgresServer
from livefeed.adapters.process import EmbeddedServer, free_port

__all__ = [
    "EmbeddedServer",
    "NatsCluster",
    "NatsServer",
    "PostgresReplica",
    "PostgresServer",
    "free_port",
]
