"""What a gateway has to report of its users: net changes, none that came and went."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.presence import Changes, Presence
from livefeed.adapters.postgres.presence import Feeds

MOST = 1_000


@dataclass(eq=False)
class Phone:
    """A device of a user."""

    feeds: list[str] = field(default_factory=list)
    visible: bool = True


@pytest.fixture
def presence() -> Presence:
    return Presence()


def report(presence: Presence) -> Changes:
    """One report that succeeds."""
    changes = presence.take(MOST)
    presence.done(changes)
    return changes


def joined(presence: Presence, *feeds: str, user: str = "alice") -> Phone:
    phone = Phone(list(feeds))
    presence.joined(user, phone)
    return phone


def test_a_user_is_the_sum_of_their_devices(presence: Presence) -> None:
    """On the screen is what any visible device follows; the user is there until the last leaves."""
    phone, laptop = joined(presence, "home"), joined(presence, "news", "home")
    assert report(presence) == {"alice": ("home", "news")}
    laptop.visible = False
    presence.changed("alice")
    assert report(presence) == {"alice": ("home",)}
    presence.left("alice", phone)
    assert report(presence) == {"alice": ()}
    presence.left("alice", laptop)
    assert report(presence) == {"alice": None}


def test_only_what_adds_up_to_something_else_is_reported(presence: Presence) -> None:
    """A second device with the same feeds, a look away and back, a feed twice: no changes."""
    phone = joined(presence, "home")
    report(presence)
    tablet = joined(presence, "home")
    assert report(presence) == {}
    phone.visible = False
    presence.changed("alice")
    assert report(presence) == {}, "the tablet still shows it"
    phone.visible = True
    phone.feeds.append("news")
    presence.changed("alice")
    phone.feeds.remove("news")
    presence.changed("alice")
    presence.left("alice", tablet)
    assert report(presence) == {}


def test_coming_and_going_within_a_report_is_none(presence: Presence) -> None:
    """Of a user who came and left nothing is written; of one who left and came back neither."""
    presence.left("alice", joined(presence, "home"))
    assert report(presence) == {}
    phone = joined(presence, "home")
    report(presence)
    presence.left("alice", phone)
    joined(presence, "home")
    assert report(presence) == {}


def test_one_who_leaves_while_the_report_is_under_way_is_taken_back(presence: Presence) -> None:
    """What was just written of them is deleted by the next report."""
    phone = joined(presence, "home")
    changes = presence.take(MOST)
    presence.left("alice", phone)
    presence.done(changes)
    assert report(presence) == {"alice": None}


def test_what_failed_is_reported_again_even_if_it_is_as_before(presence: Presence) -> None:
    """Nobody knows whether a failed statement was carried out, so the next one says it anew."""
    phone = joined(presence, "home")
    report(presence)
    phone.visible = False
    presence.changed("alice")
    presence.failed(presence.take(MOST))
    phone.visible = True
    presence.changed("alice")
    assert report(presence) == {"alice": ("home",)}
    assert report(presence) == {}


def test_a_report_is_bounded(presence: Presence) -> None:
    """A thousand users at once, changed or not; the next one takes the rest."""
    for number in range(2_500):
        joined(presence, user=f"u{number}")
    taken = [len(report(presence)) for _ in range(4)]
    assert taken == [1_000, 1_000, 500, 0]
    for number in range(2_500):
        presence.changed(f"u{number}")
    assert report(presence) == {}
    assert presence.waiting == 1_500, "to look without finding anything is bounded too"


def test_everything_is_reported_again_after_a_loss(presence: Presence) -> None:
    """Of those who are there; those who left meanwhile are lost already."""
    joined(presence, "home")
    phone = joined(presence, "news", user="bob")
    report(presence)
    presence.left("bob", phone)
    presence.again()
    assert report(presence) == {"alice": ("home",)}


def test_nobody_piles_up_while_nothing_can_be_reported(presence: Presence) -> None:
    """Of users who come and go meanwhile nothing is kept."""
    for number in range(100):
        presence.left(f"u{number}", joined(presence, user=f"u{number}"))
    assert not presence._dirty  # what is kept is the claim
    assert not presence._devices


ACTIONS = ("join", "leave", "hide", "show", "follow", "unfollow", "take", "done", "failed", "lost")


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5)), max_size=60))
def test_the_table_becomes_what_is_true(actions: list[tuple[str, int]]) -> None:
    """Whatever happens, with reports that fail half the way: two good reports later it is true."""
    presence, table = Presence(), dict[str, Feeds]()
    devices: list[tuple[str, Phone]] = []
    taken: Changes = {}

    def write(changes: Changes) -> None:
        for user, feeds in changes.items():
            table.pop(user, None) if feeds is None else table.update({user: feeds})

    for action, number in actions:
        user, phone = devices[number % len(devices)] if devices else ("", Phone())
        match action:
            case "join":
                devices.append((f"u{number % 3}", joined(presence, "home", user=f"u{number % 3}")))
            case "take" if not taken:
                taken = presence.take(2)
            case "done":
                write(taken)
                presence.done(taken)
                taken = {}
            case "failed":
                if number % 2:
                    write(taken)
                presence.failed(taken)
                taken = {}
            case "lost" if not taken:
                table.clear()
                presence.again()
            case "leave" if devices:
                devices.remove((user, phone))
                presence.left(user, phone)
            case "hide" | "show":
                phone.visible = action == "show"
                presence.changed(user)
            case "follow" | "unfollow":
                phone.feeds = ["home", "news"] if action == "follow" else []
                presence.changed(user)
    presence.failed(taken)
    write(report(presence))
    assert table == {
        user: tuple(
            sorted({feed for u, p in devices if u == user and p.visible for feed in p.feeds})
        )
        for user, _ in devices
    }
    assert report(presence) == {}
