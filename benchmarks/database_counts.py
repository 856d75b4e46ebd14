"""What PostgreSQL counts: transactions on all servers, and bytes of the primary's WAL."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from benchmarks.stack import Stack

STATISTICS_SECONDS: Final = 11.0
"""An idle backend says after 10 s what it has not said yet; a busy one each second."""
BUSY_STATISTICS_SECONDS: Final = 1.5
"""For quick runs: what backends did in their last second may be missing."""

_TRANSACTIONS: Final = """
select (xact_commit + xact_rollback)::bigint as transactions
from pg_stat_database where datname = current_database()
"""
_WAL: Final = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint as bytes"


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the servers were started."""

    transactions: int
    """Committed or rolled back, reads too, on the primary and its replica together."""
    wal_bytes: int

    def since(self, before: Counts) -> Counts:
        """What came after an earlier look."""
        return Counts(self.transactions - before.transactions, self.wal_bytes - before.wal_bytes)


async def counts(stack: Stack, *, settle_seconds: float = STATISTICS_SECONDS) -> Counts:
    """Look at the counters of a stack.

    Args:
        stack: Whose servers are asked.
        settle_seconds: How long is waited before, for backends to say what they did.
    """
    async with stack.database() as pool:
        wal = int((await pool.fetch(_WAL))[0]["bytes"])
    await asyncio.sleep(settle_seconds)
    async with stack.database() as pool:
        transactions = int((await pool.fetch(_TRANSACTIONS))[0]["transactions"])
    if stack.has_replica:
        async with stack.database(replica=True) as pool:
            transactions += int((await pool.fetch(_TRANSACTIONS))[0]["transactions"])
    return Counts(transactions, wal)
