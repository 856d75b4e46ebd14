"""Reads the whole log from PostgreSQL and compares it with the model, and answers with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from benchmarks.corpus import Corpus
from benchmarks.feed_answers import judge_answer
from benchmarks.readers import Sample
from benchmarks.reference import Channel, Findings, Reference, Row, Standing, birth_of
from benchmarks.report import Report, merged
from benchmarks.stack import Stack
from livefeed.adapters.postgres.pool import Pool
from livefeed.channel import user_channel
from livefeed.topology import DEAD_LETTERS

CHANNELS_A_PAGE: Final = 500
HEADS_A_PAGE: Final = 10_000
BODIES_A_PAGE: Final = 10_000

_CHANNELS = """
select id, name, seq, floor from feed_channel where id > $1 order by id limit $2
"""
_ENTRIES = """
select channel_id, item, facet, seq, explicit, version, ref, kind, rank, born, update_id
from feed_entry left join feed_body using (ref) where channel_id = any($1::bigint[])
"""
_BODIES = """
select ref, update_id, body from feed_body where ref > $1 order by ref limit $2
"""


async def compare(stack: Stack, reference: Reference, report: Report, suffix: str = "") -> None:
    """Read all that the log has, and add what is wrong with it to the report."""
    async with stack.database() as pool:
        async for channel in channels(pool):
            reference.compare(channel)
        after = b""
        while page := await pool.fetch(_BODIES, after, BODIES_A_PAGE):
            after = page[-1]["ref"]
            for row in page:
                reference.compare_body(row["ref"], row["update_id"], row["body"])
    findings = reference.finish()
    findings.add("lost", f"{DEAD_LETTERS} has updates", await stack.stored(DEAD_LETTERS))
    report.faults = merged([report.faults, findings.faults])
    report.notes += findings.examples
    report.add(f"entries{suffix}", findings.entries)
    stack.keep |= any(findings.faults.values())


async def compare_answers(
    stack: Stack, corpus: Corpus, samples: Iterable[Sample], report: Report
) -> None:
    """Compare snapshots with the log as it is now, and add what is wrong to the report.

    Args:
        stack: Whose log it is.
        corpus: What was published.
        samples: Answers of any moment before this.
        report: Where faults are counted.
    """
    waiting: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        waiting[user_channel(corpus.user(sample.user), corpus.feed)].append(sample)
    compared = sum(map(len, waiting.values()))
    found = Findings()
    async with stack.database() as pool:
        async for channel in channels(pool):
            for sample in waiting.pop(channel.name, []):
                judge_answer(corpus, sample, channel, found)
    for name, some in waiting.items():
        # Users without a channel: their feeds must be empty.
        wrong = sum(b'"items":[]' not in sample.body for sample in some)
        found.add("foreign", f"{name} is not in the log", wrong)
    report.faults = merged([report.faults, found.faults])
    report.notes += found.examples
    report.add("answers_compared", compared)
    report.add("items_compared", found.entries)
    stack.keep |= any(found.faults.values())


async def channels(pool: Pool) -> AsyncIterator[Channel]:
    """Every channel with its entries; an entry without a body has the update id ""."""
    after = 0
    while page := await pool.fetch(_CHANNELS, after, CHANNELS_A_PAGE):
        after = page[-1]["id"]
        rows: dict[int, list[Row]] = defaultdict(list)
        for row in await pool.fetch(_ENTRIES, [channel["id"] for channel in page]):
            rows[row["channel_id"]].append(_row(row))
        for channel in page:
            yield Channel(channel["name"], channel["seq"], channel["floor"], rows[channel["id"]])


async def heads(pool: Pool) -> dict[str, tuple[int, int]]:
    """Head and floor of every channel."""
    found: dict[str, tuple[int, int]] = {}
    after = 0
    while page := await pool.fetch(_CHANNELS, after, HEADS_A_PAGE):
        after = page[-1]["id"]
        found.update((row["name"], (row["seq"], row["floor"])) for row in page)
    return found


def _row(row: Any) -> Row:
    order = (row["explicit"], row["version"], row["ref"])
    standing = Standing(
        order, row["kind"], row["rank"], birth_of(row["born"]), row["update_id"] or ""
    )
    return Row((row["item"], row["facet"]), row["seq"], standing)
