"""The roles in NATS: each is made of names of the wire, and none but the admin's is broad."""

from __future__ import annotations

from livefeed import subjects
from livefeed.nats_roles import CACHE_STREAM, Role, roles
from livefeed.topology import DEAD_LETTERS, consumers, streams

BY_NAME = {role.name: role for role in roles()}
PEOPLE = {"admin"}


def allows(patterns: tuple[str, ...], subject: str) -> bool:
    """Whether one of the patterns of NATS matches a subject."""
    return any(_matches(pattern.split("."), subject.split(".")) for pattern in patterns)


def _matches(pattern: list[str], subject: list[str]) -> bool:
    if pattern[-1] == ">":
        whole = pattern[:-1]
        return len(subject) > len(whole) and _matches_each(whole, subject[: len(whole)])
    return _matches_each(pattern, subject)


def _matches_each(pattern: list[str], subject: list[str]) -> bool:
    same_length = len(pattern) == len(subject)
    return same_length and all(
        one in {"*", other} for one, other in zip(pattern, subject, strict=True)
    )


def all_of(role: Role) -> tuple[str, ...]:
    """All that a role may say and hear."""
    return (*role.publish, *role.heard)


def test_no_name_comes_twice() -> None:
    """Neither a role's, nor an inbox's; and none is a part of another."""
    prefixes = [role.inbox_prefix for role in roles()]
    assert len(set(BY_NAME)) == len(roles())
    assert not [one for one in prefixes for other in prefixes if other.startswith(f"{one}.")]


def test_every_process_hears_its_own_answers_alone() -> None:
    """What is in another's inbox is another's business."""
    for role in roles():
        for other in roles():
            own = role == other
            assert allows(role.heard, f"{other.inbox_prefix}.x.1") == own, (role.name, other.name)
        assert not allows(role.heard, "_INBOX.x")


def test_only_the_admin_may_change_streams() -> None:
    """No process makes, changes or deletes one, but for the bucket of pages."""
    for role in roles():
        for stream in streams(bytes_max=1 << 30):
            for verb in ("CREATE", "UPDATE", "DELETE", "SNAPSHOT", "RESTORE", "MSG.DELETE"):
                may = allows(role.publish, f"$JS.API.STREAM.{verb}.{stream.name}")
                assert may == (role.name in PEOPLE), (role.name, verb)
        deletes = allows(role.publish, f"$JS.API.STREAM.DELETE.{CACHE_STREAM}")
        assert deletes == (role.name in PEOPLE)


def test_only_the_admin_reads_dead_letters() -> None:
    """They are whole updates, of anybody."""
    for role in roles():
        for verb in ("STREAM.MSG.GET", "DIRECT.GET"):
            may = allows(role.publish, f"$JS.API.{verb}.{DEAD_LETTERS}")
            assert may == (role.name in PEOPLE), role.name


def test_workers_pull_every_consumer() -> None:
    """And settle what they were given, with a domain in front or without."""
    worker = BY_NAME["worker"]
    for consumer in consumers():
        name = f"{consumer.stream}.{consumer.name}"
        assert allows(worker.publish, f"$JS.API.CONSUMER.MSG.NEXT.{name}")
        assert allows(worker.publish, f"$JS.ACK.{name}.1.2.3.4.5")
        assert allows(worker.publish, f"$JS.ACK.hub.account.{name}.1.2.3.4.5.6")


def test_gateways_say_nothing_in_the_place_of_workers() -> None:
    """A gateway that is taken over tells no other one's clients anything."""
    gateway = BY_NAME["gateway"]
    assert not allows(gateway.publish, subjects.live_user("alice"))
    assert not allows(gateway.publish, subjects.live_topic("home"))
    assert not allows(gateway.publish, subjects.updates("high", "x"))
    assert allows(gateway.heard, subjects.live_user("alice"))
    assert allows(gateway.heard, subjects.live_topic("home"))


def test_publishers_hear_nothing() -> None:
    """But their own acknowledgements."""
    publisher = BY_NAME["publisher"]
    assert publisher.subscribe == ()
    assert allows(publisher.publish, subjects.updates("low", "posts"))


def test_nobody_but_the_admin_is_told_everything() -> None:
    """A pattern that is as broad as that would make the table useless."""
    broad = {">", "feed.>", "$JS.>", "$JS.API.>", "$KV.>", "$SYS.>", "_INBOX.>"}
    for role in roles():
        if role.name not in PEOPLE:
            assert not broad & set(all_of(role)), role.name
