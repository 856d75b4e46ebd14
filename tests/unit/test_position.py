"""The gap rule, against every way in which live batches may be lost, doubled or reordered."""

from hypothesis import given
from hypothesis import strategies as st

from livefeed.position import Position, Verdict


def test_a_batch_that_continues_is_sent() -> None:
    """A batch that starts at the position moves it to the batch's end."""
    position = Position(5)
    assert position.live(5, 7, complete=True) is Verdict.SEND
    assert position.position == 7


def test_a_batch_that_overlaps_is_sent() -> None:
    """A batch that starts before the position and ends after it has everything that is missing."""
    position = Position(5)
    assert position.live(3, 7, complete=True) is Verdict.SEND


def test_a_batch_seen_before_is_skipped() -> None:
    """A batch that ends at or before the position says nothing new."""
    position = Position(5)
    assert position.live(3, 5, complete=True) is Verdict.SKIP
    assert position.live(4, 5, complete=False) is Verdict.SKIP


def test_a_gap_is_caught_up() -> None:
    """A batch that starts after the position is not sent: something before it is missing."""
    position = Position(5)
    assert position.live(6, 7, complete=True) is Verdict.CATCH_UP
    assert position.position == 5
    assert position.catching_up


def test_a_head_without_updates_is_caught_up() -> None:
    """A batch that says the head only cannot be sent, whatever it covers."""
    assert Position(5).live(5, 7, complete=False) is Verdict.CATCH_UP


def test_a_catch_up_goes_on_until_it_has_reached_every_batch() -> None:
    """What comes during a catch-up is not sent; the catch-up goes on until it has reached it."""
    position = Position(0)
    position.begin()
    assert position.live(8, 9, complete=True) is Verdict.REMEMBER
    assert not position.page(5, more=False)
    assert position.catching_up
    assert position.page(9, more=False)
    assert not position.catching_up
    assert position.live(9, 10, complete=True) is Verdict.SEND


def test_behind_starts_one_catch_up() -> None:
    """A head beyond the position starts a catch-up, once."""
    position = Position(5)
    assert not position.behind(5)
    assert position.behind(6)
    assert not position.behind(7)
    assert not position.page(6, more=False)
    assert position.page(7, more=False)


Flush = st.tuples(st.booleans(), st.booleans(), st.integers(0, 3))


@given(
    flushes=st.lists(Flush, max_size=30),
    page_entries=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_nothing_is_missed_and_nothing_sent_twice(flushes, page_entries, order) -> None:
    """Whatever is lost, doubled or delayed, a client gets each seq once, in order, and all of them.

    The log grows by one seq a flush; a flush's batch may be lost, doubled, and delayed past later
    ones. After the last one a head check compares, as the gateway's does.
    """
    position, sent = Position(0), []
    head = 0

    def catch_up() -> None:
        while position.catching_up:
            end = min(head, position.position + page_entries)
            sent.extend(range(position.position + 1, end + 1))
            position.page(end, more=end < head)

    waiting: list[tuple[int, int, bool]] = []
    for lost, doubled, delay in flushes:
        head += 1
        if not lost:
            waiting += [(head - 1, head, delay > 0)] * (2 if doubled else 1)
        order.shuffle(waiting)
        while len(waiting) > delay:
            start, end, complete = waiting.pop()
            if position.live(start, end, complete=complete) is Verdict.SEND:
                sent.extend(range(start + 1, end + 1))
            if order.random() < 0.5:
                catch_up()
    catch_up()
    if position.behind(head):
        catch_up()
    assert sent == list(range(1, head + 1))
