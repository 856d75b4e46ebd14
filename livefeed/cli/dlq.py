"""`livefeed dlq`: look at dead letters, publish them again, drop them."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, BinaryIO, Final, get_args

import click

from livefeed.adapters.nats.dead_letters import DeadLetters
from livefeed.adapters.nats.facts import dead_letter_counts
from livefeed.adapters.nats.publish import Publisher
from livefeed.cli.environment import command_settings
from livefeed.cli.moments import moment
from livefeed.cli.replaying import FAILURES_SHOWN_MAX, Replay, Result, Selection
from livefeed.cli.running import nats_connection, run
from livefeed.cli.terminal import printable
from livefeed.dead_letter import DeadLetter
from livefeed.errors import DeadLetterReason, Misconfigured, Refused
from livefeed.limits import STREAM_MESSAGE_BYTES_MAX
from livefeed.moment import moment_text
from livefeed.topology import DEAD_LETTERS

SENTENCE_CHARACTERS_MAX: Final = 512
MEND: Final = (
    "mend one with `livefeed dlq show SEQ --payload > FILE`, "
    "then `livefeed dlq replay SEQ --payload FILE`"
)
_sequence = click.IntRange(1)
_reason = click.Choice(get_args(DeadLetterReason))


@click.group("dlq")
def command() -> None:
    """Look at dead letters, publish them again, drop them."""


@command.command("list")
@click.option("--reason", type=_reason, metavar="REASON", help="Only letters of this reason.")
@click.option("--since", callback=moment, metavar="T", help="Only those since T: a time, or 2h.")
@click.option("--limit", type=click.IntRange(1), help="Only the newest N.")
@click.option("--count", "count_only", is_flag=True, help="Only how many there are by reason.")
@click.option("--json", "as_json", is_flag=True, help="As JSON objects, one a line.")
def list_letters(
    reason: DeadLetterReason | None,
    since: int | None,
    limit: int | None,
    *,
    count_only: bool,
    as_json: bool,
) -> None:
    """List the dead letters, the newest last, and how many there are of each reason."""
    if count_only and limit is not None:
        raise click.UsageError("--count counts all of them: leave --limit out")
    if count_only and since is None:
        counts = run(_counts(reason))
    else:
        counts = run(_list(reason, since, limit, show=None if count_only else as_json))
    if count_only and as_json:
        click.echo(json.dumps(dict(counts)))
    else:
        click.echo(_summary(counts), err=not count_only)


@command.command("show")
@click.argument("sequence", type=_sequence, metavar="SEQ")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--payload", is_flag=True, help="Only the original bytes, exactly.")
def show(sequence: int, *, as_json: bool, payload: bool) -> None:
    """Show the dead letter SEQ: where it comes from, its headers, and the original bytes."""
    if as_json and payload:
        raise click.UsageError("--json and --payload exclude each other")
    letter = run(_get(sequence))
    if payload:
        _write(letter.payload)
    elif as_json:
        facts = {**_facts(letter), "headers": letter.headers, **_bytes(letter)}
        _write(json.dumps(facts).encode() + b"\n")
    else:
        _print_letter(letter)


@command.command("replay")
@click.argument("sequences", type=_sequence, nargs=-1, metavar="SEQ")
@click.option("--reason", type=_reason, metavar="REASON", help="Every letter of this reason.")
@click.option("--all", "everything", is_flag=True, help="Every letter that is there now.")
@click.option(
    "--payload",
    type=click.File("rb"),
    metavar="FILE",
    help="Publish the bytes of FILE instead (`-`: standard input); for one SEQ.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def replay(
    sequences: tuple[int, ...],
    reason: DeadLetterReason | None,
    payload: BinaryIO | None,
    *,
    everything: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish dead letters again where they were published, and then delete them.

    Each is checked as the server will check it; what would only come back stays. The exit code is 1
    when any was not replayed.
    """
    if sum([bool(sequences), reason is not None, everything]) != 1:
        raise click.UsageError("name letters by SEQ, or by --reason, or say --all")
    if payload is not None and len(sequences) != 1:
        raise click.UsageError("--payload is for one SEQ")
    mended = None if payload is None else payload.read(STREAM_MESSAGE_BYTES_MAX + 1)
    selection = Selection(sequences=tuple(dict.fromkeys(sequences)), reason=reason)
    done = run(_replay(selection, mended, dry_run=dry_run))
    click.echo(_counted(done.result, dry_run=dry_run, as_json=as_json))
    if done.failure is not None:
        click.echo("livefeed: the rest was not tried; call it again", err=True)
    if done.result.failed:
        raise click.exceptions.Exit(1)


@command.command("drop")
@click.argument("sequences", type=_sequence, nargs=-1, metavar="SEQ")
@click.option("--reason", type=_reason, metavar="REASON", help="Every letter of this reason.")
@click.option("--older-than", callback=moment, metavar="T", help="Those before T: a time, or 7d.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(
    sequences: tuple[int, ...],
    reason: DeadLetterReason | None,
    older_than: int | None,
    *,
    yes: bool,
) -> None:
    """Delete dead letters for ever."""
    if bool(sequences) == (reason is not None or older_than is not None):
        raise click.UsageError("name letters by SEQ, or by --reason, --older-than, or both of them")
    what = _described(sequences, reason, older_than)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"this deletes {what} for ever; say --yes")
        click.confirm(f"Delete {what} for ever?", abort=True, err=True)
    dropped = run(_drop(sequences, reason, older_than))
    click.echo(f"dropped {dropped}")
    if dropped < len(set(sequences)):
        raise click.exceptions.Exit(1)


@contextlib.asynccontextmanager
async def _queue() -> AsyncIterator[tuple[DeadLetters, Publisher]]:
    async with nats_connection(command_settings(), "livefeed-dlq") as connection:
        publisher = Publisher(connection)
        publisher.start()
        yield DeadLetters(connection), publisher


async def _counts(reason: DeadLetterReason | None) -> Counter[str]:
    async with nats_connection(command_settings(), "livefeed-dlq") as connection:
        counts = await dead_letter_counts(connection)
    if counts is None:
        raise Misconfigured(f"nats has no stream {DEAD_LETTERS}; run `livefeed provision`")
    return Counter({name: n for name, n in counts.items() if reason in {None, name}})


async def _list(
    reason: DeadLetterReason | None, since: int | None, limit: int | None, *, show: bool | None
) -> Counter[str]:
    """Print the letters, as JSON or for a person, or not at all; returns how many of each."""
    counts: Counter[str] = Counter()
    async with _queue() as (letters, _):
        last = await letters.last()
        first = 1 if since is None else await letters.first_since(since)
        if first is None:
            return counts
        if limit is not None:
            first = await letters.first_of_newest(limit, first=first, last=last, reason=reason)
        async for page in letters.pages(first=first, last=last, reason=reason):
            counts.update(letter.reason for letter in page)
            for letter in page if show is not None else ():
                click.echo(json.dumps(_facts(letter)) if show else _line(letter))
    return counts


async def _get(sequence: int) -> DeadLetter:
    async with _queue() as (letters, _):
        letter = await letters.get(sequence)
    if letter is None:
        detail = f"there is no dead letter {sequence}; it was replayed, dropped or expired"
        raise Refused("not_found", detail)
    return letter


async def _replay(selection: Selection, mended: bytes | None, *, dry_run: bool) -> Replay:
    async with _queue() as (letters, publisher):
        last = await letters.last()
        on_terminal = sys.stderr.isatty()
        clear = "\r\x1b[K" if on_terminal else ""
        with click.progressbar(
            length=len(selection.sequences) or last,
            label="replaying",
            file=sys.stderr,
            hidden=not on_terminal,
        ) as bar:
            done = Replay(
                letters,
                None if dry_run else publisher,
                show=lambda text: click.echo(
                    clear + printable(text, SENTENCE_CHARACTERS_MAX), err=True
                ),
                progress=bar.update,
            )
            await done.run(selection, last=last, mended=mended)
    if done.result.failed > FAILURES_SHOWN_MAX:
        click.echo(f"… and {done.result.failed - FAILURES_SHOWN_MAX} more", err=True)
    if done.result.failed and mended is None:
        click.echo(MEND, err=True)
    return done


async def _drop(
    sequences: tuple[int, ...], reason: DeadLetterReason | None, older_than: int | None
) -> int:
    async with _queue() as (letters, _):
        before = await letters.last() + 1
        if sequences:
            return sum([await letters.delete(sequence) for sequence in dict.fromkeys(sequences)])
        if older_than is not None:
            before = await letters.first_since(older_than) or before
        # What lies below the first sequence is nothing, and to the server 1 may mean everything.
        return await letters.purge(before=before, reason=reason) if before > 1 else 0


def _described(
    sequences: tuple[int, ...], reason: DeadLetterReason | None, older_than: int | None
) -> str:
    if sequences:
        return "the letter" if len(sequences) == 1 else f"{len(sequences)} letters"
    of_reason = "" if reason is None else f" of the reason {reason}"
    older = "" if older_than is None else f" from before {moment_text(older_than)}"
    return f"every letter{of_reason}{older}"


def _facts(letter: DeadLetter) -> dict[str, Any]:
    return {
        "sequence": letter.sequence,
        "at": moment_text(letter.stored_at),
        "reason": letter.reason,
        "subject": letter.subject,
        "stream": letter.stream,
        "streamSequence": letter.original_sequence,
        "bytes": len(letter.payload),
        "updateId": letter.update_id,
        "error": letter.error,
    }


def _line(letter: DeadLetter) -> str:
    origin = f"{letter.stream or '?'}:{letter.original_sequence or '?'}"
    columns = (
        str(letter.sequence),
        moment_text(letter.stored_at),
        letter.reason,
        letter.subject or "?",
        origin,
        f"{len(letter.payload)} B",
        letter.update_id or "-",
        letter.error or "",
    )
    return "  ".join(printable(column, SENTENCE_CHARACTERS_MAX) for column in columns)


def _bytes(letter: DeadLetter) -> dict[str, str]:
    try:
        return {"payload": letter.payload.decode()}
    except UnicodeDecodeError:
        return {"payloadBase64": base64.b64encode(letter.payload).decode()}


def _write(data: bytes) -> None:
    """Write all of it: with PYTHONUNBUFFERED one write may take only what a pipe has room for."""
    rest = memoryview(data)
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) :]
    sys.stdout.buffer.flush()


def _print_letter(letter: DeadLetter) -> None:
    for name, value in _facts(letter).items():
        click.echo(f"{name}: {printable(str(value), SENTENCE_CHARACTERS_MAX)}")
    for name, value in letter.headers.items():
        click.echo(f"header {printable(f'{name}: {value}', SENTENCE_CHARACTERS_MAX)}")
    click.echo()
    for line in letter.payload.decode(errors="backslashreplace").split("\n"):
        click.echo(printable(line, max(1, len(line))))


def _summary(counts: Counter[str]) -> str:
    total = counts.total()
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(counts.items()))
    letters = "1 dead letter" if total == 1 else f"{total} dead letters"
    return f"{letters}: {reasons}" if total else "no dead letters"


def _counted(result: Result, *, dry_run: bool, as_json: bool) -> str:
    if as_json:
        return json.dumps(result._asdict())
    if dry_run:
        return f"would replay {result.replayed}, failed {result.failed}"
    return ", ".join(f"{name} {number}" for name, number in result._asdict().items())
