"""Filters: what may be asked for, and what a filtered connection is told."""

import functools

import msgspec
import pytest
from msgspec import Raw

from gateway.update_frames import Piece, live_frame
from livefeed.errors import Refused
from livefeed.filters import ALL_TYPES, of_types, parse_types
from livefeed.messages import LiveChannel
from tests.model_log import REMOVAL
from tests.unit.test_connection import quiet_world

CONTENT = {"new_content", "content_update", "content_removal"}


@pytest.mark.parametrize(
    ("text", "types"),
    [
        (None, ALL_TYPES),
        ("new_content,content_update", CONTENT),
        ("new_content", {"new_content", "content_removal"}),
        ("content_update,content_update", {"content_update", "content_removal"}),
        ("content_removal", {"content_removal"}),
        ("engagement_update", {"engagement_update"}),
        ("engagement_update,new_content,content_removal,content_update", ALL_TYPES),
    ],
)
def test_a_filter_is_read(text: str | None, types: set[str]) -> None:
    """Whoever is shown content is told when it is gone."""
    assert parse_types(text) == types


@pytest.mark.parametrize(
    "text", ["", ",", "new_content,", "NEW_CONTENT", "all", "new_content " * 50]
)
def test_another_text_is_refused(text: str) -> None:
    """Never taken for less, or for everything."""
    with pytest.raises(Refused) as refused:
        parse_types(text)
    assert refused.value.code == "parameter_invalid"


def test_a_live_batch_is_filtered_by_the_type_of_each_update() -> None:
    """Not by what its content says of itself."""
    one = Raw(b'{"seq":1,"updateType":"new_content","content":{"updateType":"engagement_update"}}')
    two = Raw(b'{"seq":2,"updateType":"engagement_update","content":{"id":"p"}}')
    assert of_types([one, two], parse_types("engagement_update")) == [bytes(two)]
    assert of_types([one, two], ALL_TYPES) == [bytes(one), bytes(two)]


def test_connections_with_one_filter_share_a_frame() -> None:
    """It is made once for each filter, whatever the order in which it was asked for."""
    update = Raw(b'{"updateType":"new_content","content":{"id":"p"}}')
    batch = LiveChannel("topic:home", 0, 1, 0, [update])
    frames = functools.cache(functools.partial(live_frame, batch))
    one, other = (
        parse_types("new_content,content_update"),
        parse_types("content_update,new_content"),
    )
    assert frames(one) is frames(other)
    assert frames(parse_types("engagement_update")) is None


def test_a_batch_of_which_nothing_passes_moves_the_position_silently() -> None:
    """And a floor that it would have told is told by the next head check."""
    world = quiet_world()
    world.connection.types = parse_types("engagement_update")
    log = world.logs["topic:home"]
    log.write("a", 0)
    log.write("b", 0)
    log.raise_floor(1)
    told = len(world.frames)
    for start in (0, 1):
        batch = LiveChannel(
            log.name, start, start + 1, log.floor, [Raw(b'{"updateType":"new_content"}')]
        )
        world.connection.live("epoch1", batch, functools.partial(live_frame, batch))
    assert len(world.frames) == told
    assert not world.asked
    world.check_heads(quietly=True)
    world.answer_whole()
    (frame,) = world.frames[told:]
    assert (frame["updates"], frame["floor"], frame["cursor"]) == (
        [],
        {"all/home": 1},
        {"all/home": 2},
    )


def test_a_page_of_which_nothing_passes_says_where_it_reaches() -> None:
    """Else a client that comes back would never get on."""
    world = quiet_world()
    log = world.logs["topic:home"]
    log.write("a", REMOVAL)
    frame = Piece(log.page(0, "epoch1", 9), 0).frame(parse_types("engagement_update"))
    assert b'"updates":[]' in frame.payload
    assert b'"cursor":{"all/home":1}' in frame.payload


def test_what_a_filter_hides_costs_no_frame_of_the_budget() -> None:
    """However many batches pass by, the one that is wanted comes at once."""
    world = quiet_world()
    world.connection.types = parse_types("content_removal")
    world.connection.visible = False
    log = world.logs["topic:home"]
    told = len(world.frames)
    for kind in [0] * 50 + [REMOVAL]:
        batch = log.write("a", kind)
        world.connection.live("epoch1", batch, functools.partial(live_frame, batch))
    assert (world.asked, len(world.frames)) == ([], told + 1)


def test_a_batch_that_cannot_be_read_moves_no_position() -> None:
    """It is of a newer version, or not ours: whoever filters must not believe that it was sent."""
    world = quiet_world()
    world.connection.types = parse_types("engagement_update")
    position = world.connection.positions["topic:home"]
    batch = LiveChannel("topic:home", 0, 1, 0, [Raw(b'{"updateType":"of tomorrow"}')])
    with pytest.raises(msgspec.ValidationError):
        world.connection.live("epoch1", batch, functools.partial(live_frame, batch))
    assert position.position == 0
