"""The connections of each user, on all gateways together: the oldest go when they are too many.

There is no list of them anywhere. A gateway to which users have come asks the others which
connections they have of them, and says which are too many; whoever has those closes them. A lost
message, or NATS away, means that some stay until the user's next connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from gateway.connection import Connection
from livefeed import subjects
from livefeed.adapters.nats.connection import Connection as Nats
from livefeed.admission import Session, surplus
from livefeed.control import (
    SessionsAnswer,
    SessionsQuestion,
    SessionsSurplus,
    decode,
    decode_sessions,
    encode,
)
from livefeed.limits import SESSIONS_IN_MESSAGE_MAX, SESSIONS_SECONDS, SESSIONS_USERS_MAX
from livefeed.protocol import CloseCode

logger = logging.getLogger(__name__)

Thing = TypeVar("Thing")


class _Member(NamedTuple):
    opened_at: float
    connection: Connection

    @property
    def session(self) -> Session:
        return Session(self.opened_at, self.connection.id)


class Sessions:
    """This gateway's connections by user.

    Args:
        nats: While it is away, only this gateway's own are counted.
        gateway: This gateway's id.
        most: Connections that a user may have.
    """

    def __init__(self, nats: Nats, gateway: str, most: int) -> None:
        self._nats: Final = nats
        self._gateway: Final = gateway
        self._most: Final = most
        self._members: dict[str, list[_Member]] = {}
        self._come: dict[str, None] = {}
        """Users of whom a connection has come since the last question."""
        self._asked: dict[str, list[Session]] = {}
        """By user of the last question: what the others answered."""

    def joined(self, user: str, connection: Connection) -> None:
        """A connection has come; the user's oldest goes at once when they are too many here."""
        self._members.setdefault(user, []).append(_Member(time.time(), connection))
        self._come[user] = None
        if len(self._members[user]) > self._most:
            self._close(user, [one.connection for one in surplus(self._own(user), self._most)])

    def left(self, user: str, connection: Connection) -> None:
        """A connection is gone."""
        rest = [one for one in self._members[user] if one.connection is not connection]
        if rest:
            self._members[user] = rest
        else:
            del self._members[user]
            self._come.pop(user, None)

    def all_again(self) -> None:
        """Ask for every user: what the others had to say was not heard."""
        self._come.update(dict.fromkeys(self._members))

    async def run(self) -> None:
        """Ask the others and tell them, until cancelled."""
        self._nats.subscribe_direct(subjects.CONTROL_SESSIONS, self._on_message)
        self._nats.subscribe_direct(subjects.control_sessions(self._gateway), self._on_answer)
        while True:
            await asyncio.sleep(SESSIONS_SECONDS)
            try:
                self._decide()
                self._ask()
            except Exception:
                logger.exception("a question about the connections of users failed")

    def _own(self, user: str) -> list[Session]:
        return [one.session for one in self._members.get(user, ())]

    def _decide(self) -> None:
        """The others have answered: close what is too many, here and there."""
        there: list[tuple[str, str]] = []
        for user, answered in self._asked.items():
            ids = [one.connection for one in surplus(self._own(user) + answered, self._most)]
            foreign = {one.connection for one in answered}
            there += [(user, identifier) for identifier in ids if identifier in foreign]
            self._close(user, ids)
        for some in _parts(there, SESSIONS_IN_MESSAGE_MAX):
            self._nats.send(subjects.CONTROL_SESSIONS, encode(SessionsSurplus(_by_user(some))))

    def _ask(self) -> None:
        come, self._come = self._come, {}
        self._asked = {user: [] for user in come}
        for users in _parts(come, SESSIONS_USERS_MAX):
            question = SessionsQuestion(self._gateway, users)
            self._nats.send(
                subjects.CONTROL_SESSIONS,
                encode(question),
                reply=subjects.control_sessions(self._gateway),
            )

    def _on_message(self, _subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        message = decode_sessions(payload)
        if isinstance(message, SessionsSurplus):
            for user, ids in message.users.items():
                self._close(user, ids)
        elif (
            message is not None
            and message.gateway != self._gateway
            and subjects.answers_sessions(reply)
        ):
            self._answer(message.users, reply.decode())

    def _answer(self, users: Iterable[str], reply: str) -> None:
        # Of more than a user may have, the oldest are closed already.
        found = ((user, one) for user in users for one in self._own(user)[-self._most :])
        for some in _parts(found, SESSIONS_IN_MESSAGE_MAX):
            self._nats.send(reply, encode(SessionsAnswer(_by_user(some))))

    def _on_answer(self, _subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        answer = decode(payload, SessionsAnswer)
        for user, sessions in answer.users.items() if answer else ():
            if user in self._asked:
                self._asked[user] += sessions

    def _close(self, user: str, ids: Iterable[str]) -> None:
        too_many = set(ids)
        for one in self._members.get(user, ()):
            if one.connection.id in too_many:
                one.connection.socket.close(CloseCode.REPLACED, "newer connections took its place")


def _parts(things: Iterable[Thing], most: int) -> Iterator[list[Thing]]:
    rest = iter(things)
    while part := list(islice(rest, most)):
        yield part


def _by_user(pairs: Iterable[tuple[str, Thing]]) -> dict[str, list[Thing]]:
    users: dict[str, list[Thing]] = {}
    for user, thing in pairs:
        users.setdefault(user, []).append(thing)
    return users
