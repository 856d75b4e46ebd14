"""`seen` markers: how far each device of a user has shown a channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from livefeed.adapters.postgres.pool import Pool
from livefeed.limits import SEEN_DEVICES_MAX

# In the order of the key, so that two gateways that write the same markers do not block each other.
# A position is what a client claims until a page has checked it; and a marker of another epoch,
# which waited for the log to come back, is about another log.
_MARK: Final = """
insert into feed_seen (user_id, channel, device, epoch, position)
select user_id, channel, device, epoch, least(position, feed_channel.seq)
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
    as given (user_id, channel, device, epoch, position)
join feed_epoch using (epoch) join feed_channel on feed_channel.name = given.channel
order by user_id, channel, device
on conflict (user_id, channel, device) do update
set epoch = excluded.epoch, position = excluded.position, seen_at = now()
where feed_seen.epoch <> excluded.epoch or feed_seen.position < excluded.position
returning user_id, channel, xmax = 0 as is_new
"""

# The furthest stay, for it is they that count.
_KEEP: Final = """
delete from feed_seen gone using (
    select user_id, channel, device, row_number() over (
        partition by user_id, channel order by position desc, seen_at desc, device
    ) as place
    from feed_seen join (
        select distinct * from unnest($1::text[], $2::text[]) as given (user_id, channel)
    ) as given using (user_id, channel)
) as placed
where placed.place > $3 and gone.user_id = placed.user_id and gone.channel = placed.channel
    and gone.device = placed.device
"""


class Marker(NamedTuple):
    """Whose device, and in which channel."""

    user_id: str
    channel: str
    device: str


class Seen(NamedTuple):
    """How far it has shown everything."""

    epoch: str
    """The log's."""
    position: int


async def mark_seen(pool: Pool, markers: Mapping[Marker, Seen]) -> None:
    """Raise markers, at most SEEN_ROWS_MAX; none falls within an epoch.

    Raises:
        Unavailable: The primary is away.
    """
    rows = [(*marker, *seen) for marker, seen in markers.items()]
    written = await pool.fetch(_MARK, *map(list, zip(*rows, strict=True)))
    new = [(row["user_id"], row["channel"]) for row in written if row["is_new"]]
    if new:
        await pool.fetch(_KEEP, *map(list, zip(*new, strict=True)), SEEN_DEVICES_MAX)
