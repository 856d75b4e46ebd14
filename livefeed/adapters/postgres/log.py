"""The write side of the keyed log: persist a flush, keep the epoch.

The upsert is `entry.merge` in SQL: a newer order key moves the row to a new seq; an older one
changes nothing, but for the item's birth, of which the earliest stays. Seqs are given out under the
channel's row lock, so commit order is seq order within a channel; channels are locked in order, so
flushes do not deadlock.

What fell below a channel's floor is forgotten, its tombstones too, so what comes late may find
nothing that is newer. Therefore an entry that was accepted before its channel's `forgotten_at` and
has no place above the floor counts as below it. Decision 0012 says why that loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import asyncpg

from livefeed.adapters.postgres.pool import DATA_ERRORS, Connection, Pool
from livefeed.entry import Entry, EntryKey
from livefeed.errors import Unavailable, UpdateRefused
from livefeed.limits import BODY_KEPT_SECONDS
from livefeed.order import OrderKey
from livefeed.update import CONTENT_REMOVAL

BODY_ATTEMPTS_MAX: Final = 3
"""How often a body that was collected at the wrong moment is written again."""
CHANNEL_IDS_MAX: Final = 100_000
"""Channel ids that a process remembers."""


class Body(NamedTuple):
    """What is stored once for each item of an update."""

    ref: bytes
    update_id: str
    body: bytes
    published_at: int
    """Microseconds since 1970."""
    accepted_at: int
    """Microseconds since 1970."""
    trace: str | None


class Placed(NamedTuple):
    """An entry that the flush changed, where it now stands."""

    seq: int
    entry: Entry


@dataclass(slots=True)
class ChannelChange:
    """What a flush did to one channel."""

    channel: str
    before: int
    """The head before the flush."""
    head: int
    floor: int
    placed: list[Placed] = field(default_factory=list)
    """In seq order; empty when nothing was newer."""


@dataclass(slots=True)
class Flushed:
    """What a flush did."""

    epoch: str
    changes: list[ChannelChange]
    bodies: dict[bytes, bytes]
    """What the log holds for each ref of the flush: the first body that ever came for it."""


_INSERT_BODIES = """
insert into feed_body (ref, update_id, body, published_at, accepted_at, trace)
select ref, update_id, body, to_timestamp(published / 1e6), to_timestamp(accepted / 1e6), trace
from unnest($1::bytea[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[], $6::text[])
    as given (ref, update_id, body, published, accepted, trace)
on conflict (ref) do nothing
returning ref
"""

_KEEP_BODIES = """
with old as (
    select ref from feed_body
    where ref = any($1::bytea[]) and persisted_at < now() - make_interval(secs => $2)
    order by ref for update
), kept as (
    update feed_body body set persisted_at = now() from old where body.ref = old.ref
    returning body.ref, body.body
)
select ref, body from kept
union all
select ref, body from feed_body
where ref = any($1::bytea[]) and persisted_at >= now() - make_interval(secs => $2)
"""

_INSERT_CHANNELS = """
insert into feed_channel (name) select name from unnest($1::text[]) as given (name)
on conflict (name) do nothing
"""

_SELECT_CHANNELS = "select id, name from feed_channel where name = any($1::text[])"

_LOCK_CHANNELS = """
select id, name, seq, floor, (select epoch from feed_epoch) as epoch,
    (extract(epoch from forgotten_at) * 1000000)::bigint as forgotten_at
from feed_channel where id = any($1::bigint[]) order by id for no key update
"""

# What is at or below the floor does not count: `retain` may delete it at any moment. What is above
# stays while the channel is locked, for a floor is raised under that lock.
# By the primary key, one at a time: a join may read all that a channel holds, under its lock.
_STANDING = """
select given.number
from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[])
    with ordinality as given (channel_id, item, facet, floor, number)
cross join lateral (
    select from feed_entry entry
    where entry.channel_id = given.channel_id and entry.item = given.item
        and entry.facet = given.facet and entry.seq > given.floor
    offset 0
) as standing
"""

_NEWER = """(held.explicit, held.version, held.ref)
        < (excluded.explicit, excluded.version, excluded.ref)"""

_UPSERT = f"""
with changed as (
    insert into feed_entry as held
        (channel_id, item, facet, seq, explicit, version, ref, kind, rank, born)
    select * from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[], $5::smallint[],
        $6::bigint[], $7::bytea[], $8::smallint[], $9::float8[], $10::bigint[])
    on conflict (channel_id, item, facet) do update set
        seq = case when {_NEWER} or held.kind <> {CONTENT_REMOVAL} then excluded.seq
            else held.seq end,
        explicit = case when {_NEWER} then excluded.explicit else held.explicit end,
        version = case when {_NEWER} then excluded.version else held.version end,
        ref = case when {_NEWER} then excluded.ref else held.ref end,
        kind = case when {_NEWER} then excluded.kind else held.kind end,
        rank = case when {_NEWER} then excluded.rank else held.rank end,
        born = least(held.born, excluded.born)
    where {_NEWER} or excluded.born < held.born
    returning channel_id, seq, explicit, version, ref, kind, rank, born
), moved as (
    update feed_channel set seq = top.seq
    from (select channel_id, max(seq) as seq from changed group by channel_id) as top
    where id = top.channel_id and top.seq > feed_channel.seq
)
select * from changed order by channel_id, seq
"""  # noqa: S608  # our own words

_RENEW_EPOCH = """
update feed_epoch set epoch = replace(gen_random_uuid()::text, '-', ''), since = now(),
    timeline = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
where timeline <> ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
"""


class Log:
    """Writes to the keyed log through a pool of connections to the primary."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._ids: dict[str, int] = {}

    async def persist(
        self, entries: Mapping[EntryKey, Entry], bodies: Mapping[bytes, Body]
    ) -> Flushed:
        """Make the log contain these entries, and say what that changed.

        Entries that are late (see above) are left out, as if they had come in time and fallen.

        Args:
            entries: Coalesced entries.
            bodies: By ref; one for each entry.

        Raises:
            Unavailable: The primary is away; nothing or everything was committed.
            UpdateRefused: Postgres cannot store this data, whenever it is tried.
        """
        try:
            async with self._pool.connection() as connection:
                stored = await _insert_bodies(connection, entries, bodies)
                ids = await self._channel_ids(connection, {key.channel for key in entries})
                async with connection.transaction():
                    locked = await self._lock(connection, ids)
                    late = await _forgotten(connection, entries, bodies, locked)
                    changes = await _upsert(connection, entries, locked, late)
                return Flushed(locked[0]["epoch"], changes, stored)
        except DATA_ERRORS as error:
            raise UpdateRefused("not_persistable", str(error)) from error

    async def _lock(self, connection: Connection, ids: Mapping[str, int]) -> list[asyncpg.Record]:
        locked = await connection.fetch(_LOCK_CHANNELS, list(ids.values()))
        if {row["name"]: row["id"] for row in locked} != ids:
            # Another server took over without the last channels of the one before, and may have
            # given their ids to other users' channels.
            self._ids.clear()
            raise Unavailable(self._pool.dependency, "it has other channels than it had")
        return locked

    async def _channel_ids(self, connection: Connection, names: Iterable[str]) -> dict[str, int]:
        known, missing = {}, []
        if len(self._ids) > CHANNEL_IDS_MAX:
            # Which of them are used is not worth knowing: they are read again.
            self._ids.clear()
        for name in names:
            number = self._ids.get(name)
            if number is None:
                missing.append(name)
            else:
                known[name] = number
        if missing:
            # Sorted: two processes that create the same channels must not wait for each other.
            await connection.execute(_INSERT_CHANNELS, sorted(missing))
            for row in await connection.fetch(_SELECT_CHANNELS, missing):
                known[row["name"]] = self._ids[row["name"]] = row["id"]
        return known


async def renew_epoch_if_changed(connection: asyncpg.Connection) -> None:
    """Give the log a new epoch when the server's timeline is not the one it had."""
    if await connection.fetchval("select to_regclass('feed_epoch') is not null"):
        await connection.execute(_RENEW_EPOCH)


async def _insert_bodies(
    connection: Connection, entries: Mapping[EntryKey, Entry], bodies: Mapping[bytes, Body]
) -> dict[bytes, bytes]:
    # Sorted, so that two flushes with the same bodies cannot deadlock; before the transaction, so
    # that nobody waits for a channel while bodies are written.
    missing = sorted({entry.order.ref for entry in entries.values()})
    stored: dict[bytes, bytes] = {}
    for _ in range(BODY_ATTEMPTS_MAX):
        rows = await connection.fetch(_INSERT_BODIES, *_columns([bodies[ref] for ref in missing]))
        stored.update((row["ref"], bodies[row["ref"]].body) for row in rows)
        held = [ref for ref in missing if ref not in stored]
        if held:
            # One update id with two contents counts once, and the first counts: whoever is told of
            # it live must be told what the log says. Old ones become young, so that `retain` does
            # not collect them before this flush has committed its entries.
            rows = await connection.fetch(_KEEP_BODIES, held, BODY_KEPT_SECONDS)
            stored.update((row["ref"], row["body"]) for row in rows)
        missing = [ref for ref in held if ref not in stored]
        if not missing:
            return stored
    raise Unavailable("primary", "bodies vanish as soon as they are written")


async def _forgotten(
    connection: Connection,
    entries: Mapping[EntryKey, Entry],
    bodies: Mapping[bytes, Body],
    locked: Sequence[asyncpg.Record],
) -> set[EntryKey]:
    """Those that count as below the floor; no statement while nothing comes late."""
    forgetful = {row["name"]: row for row in locked if row["forgotten_at"] is not None}
    late = [
        key
        for key, entry in entries.items()
        if key.channel in forgetful
        and bodies[entry.order.ref].accepted_at < forgetful[key.channel]["forgotten_at"]
    ]
    if not late:
        return set()
    channels = [forgetful[key.channel] for key in late]
    places = [
        (channel["id"], key.item, key.facet, channel["floor"])
        for key, channel in zip(late, channels, strict=True)
    ]
    standing = await connection.fetch(_STANDING, *_columns(places))
    return set(late) - {late[row["number"] - 1] for row in standing}


async def _upsert(
    connection: Connection,
    entries: Mapping[EntryKey, Entry],
    locked: Sequence[asyncpg.Record],
    left_out: Set[EntryKey],
) -> list[ChannelChange]:
    ids = {row["name"]: row["id"] for row in locked}
    changes = {
        row["id"]: ChannelChange(row["name"], row["seq"], row["seq"], row["floor"])
        for row in locked
    }
    given = {number: change.before for number, change in changes.items()}
    rows = []
    # Older entries get lower seqs: a client that reads half of them sees the past, not a mixture.
    for key, entry in sorted(entries.items(), key=lambda pair: pair[1].order):
        if key in left_out:
            continue
        number = ids[key.channel]
        given[number] += 1
        place = (number, key.item, key.facet, given[number])
        rows.append((*place, *entry.order, entry.kind, entry.rank, entry.born))
    for row in await connection.fetch(_UPSERT, *_columns(rows)) if rows else ():
        change = changes[row["channel_id"]]
        if row["seq"] <= change.before:
            continue  # A removed item learnt of its birth: nobody can see that.
        order = OrderKey(row["explicit"], row["version"], row["ref"])
        change.head = row["seq"]
        entry = Entry(order, row["kind"], row["rank"], row["born"])
        change.placed.append(Placed(row["seq"], entry))
    return list(changes.values())


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
