"""`livefeed reconcile`: is everything that the streams hold in the log?"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
import time
from typing import Any, Final

import click

from livefeed.adapters.nats.progress import settled
from livefeed.adapters.nats.publish import Publisher
from livefeed.adapters.nats.stored import first_since, held_by
from livefeed.cli.environment import command_settings
from livefeed.cli.moments import moment
from livefeed.cli.plugins import audience_resolver
from livefeed.cli.reconciling import Missing, Reconciler, index_letters
from livefeed.cli.running import nats_connection, primary_pool, run
from livefeed.cli.terminal import printable
from livefeed.limits import RECONCILE_WAIT_SECONDS
from livefeed.moment import moment_text
from livefeed.reconcile import STATES
from livefeed.topology import UPDATES

MISSING_SHOWN_MAX: Final = 20
CLEAR_LINE: Final = "\r\x1b[K"


@click.command("reconcile")
@click.option(
    "--since", callback=moment, metavar="T", required=True, help="Since when: a time, or 2h, 7d."
)
@click.option("--republish", is_flag=True, help="Publish again what is missing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON objects, the counts last.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=RECONCILE_WAIT_SECONDS,
    show_default=True,
    help="Seconds to wait for workers to handle what is on its way.",
)
def command(since: int, *, republish: bool, as_json: bool, wait: float) -> None:
    """Compare the updates that the streams hold with the log, after it was restored.

    Changes nothing without --republish. The exit code is 1 when anything is missing.
    """
    done = run(_Command(as_json=as_json).run(since, republish=republish, wait=wait))
    if done.counts["missing"]:
        raise click.exceptions.Exit(1)


class _Command:
    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._on_terminal = sys.stderr.isatty()
        self._shown = 0

    async def run(self, since: int, *, republish: bool, wait: float) -> Reconciler:
        settings = command_settings()
        async with (
            nats_connection(settings, "livefeed-reconcile") as connection,
            primary_pool(settings, "livefeed-reconcile", lookups=False) as pool,
        ):
            publisher = Publisher(connection)
            publisher.start()
            # In this order: what was handled by now is in the log, or a dead letter, by then.
            handled = await settled(connection, wait_seconds=wait, clock=time.monotonic)
            letters = await index_letters(connection, since=since)
            held = await held_by(connection, UPDATES)
            last = held.last
            first = await first_since(connection, UPDATES, since) or last + 1
            if 1 < held.first == first:
                # Which may be all that was missing: it must not look like a clean answer.
                click.echo(
                    f"livefeed: {UPDATES} begins at sequence {first}; what was purged before it "
                    "cannot be compared",
                    err=True,
                )
            with self._bar(last - first + 1) as bar:
                done = Reconciler(
                    connection,
                    pool,
                    handled,
                    letters,
                    resolver=audience_resolver(settings),
                    show=self._show,
                    progress=bar.update,
                )
                await done.run(
                    first=first,
                    last=last,
                    publisher=publisher if republish else None,
                    run_id=secrets.token_hex(4),
                )
        self._summarise(done)
        return done

    def _bar(self, length: int) -> contextlib.AbstractContextManager[Any]:
        return click.progressbar(
            length=length, label="comparing", file=sys.stderr, hidden=not self._on_terminal
        )

    def _show(self, missing: Missing) -> None:
        self._shown += 1
        if self._as_json:
            click.echo(json.dumps(_facts(missing)))
        elif self._shown <= MISSING_SHOWN_MAX:
            clear = CLEAR_LINE if self._on_terminal else ""
            words = [printable(str(value)) for value in _facts(missing).values()]
            click.echo(f"{clear}missing  {'  '.join(words)}")

    def _summarise(self, done: Reconciler) -> None:
        counts = {state: done.counts[state] for state in STATES}
        if self._as_json:
            figures = {"updates": done.updates, "counts": counts, "republished": done.republished}
            click.echo(json.dumps(figures))
            return
        if self._shown > MISSING_SHOWN_MAX:
            click.echo(f"… and {self._shown - MISSING_SHOWN_MAX} more; --json lists all of them")
        states = ", ".join(f"{state} {number}" for state, number in counts.items())
        click.echo(f"updates {done.updates}: {states}; republished {done.republished}")


def _facts(missing: Missing) -> dict[str, Any]:
    published, place = missing
    return {
        "sequence": published.sequence,
        "acceptedAt": moment_text(published.accepted_at),
        "subject": published.subject,
        "updateId": published.update.update_id,
        "channel": place.key.channel,
        "contentId": place.content_id,
        "facet": "engagement" if place.key.facet else "content",
    }
