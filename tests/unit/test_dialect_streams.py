"""Where an event of a stream ends, whatever cuts it."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.dialects.events import Cutter, parts

LINES = st.lists(
    st.sampled_from([b"data: x", b"event: y", b": note", b"", b"data:", b"id: 7", "data: ü".encode()]), max_size=12
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw) -> bytes:
    return b"".join(line + draw(ENDS) for line in draw(LINES))


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(each, len(whole)) for each in places), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


@given(streams(), st.lists(st.integers(0, 120), max_size=20))
def test_every_cut_gives_the_same_events_and_loses_no_byte(whole: bytes, places: list[int]):
    at_once, pieces = Cutter(), Cutter()
    first = [*at_once.feed(whole), *at_once.feed(b"", is_last=True)]
    second = [each for piece in cut(whole, places) for each in pieces.feed(piece)] + pieces.feed(b"", is_last=True)
    assert first == second
    assert b"".join(first) + at_once.rest() == whole


@given(streams())
def test_each_event_ends_with_its_only_empty_line(whole: bytes):
    cutter = Cutter()
    for event in [*cutter.feed(whole), *cutter.feed(b"", is_last=True)]:
        lines = event.splitlines()
        assert lines.index(b"") == len(lines) - 1


def test_data_of_several_lines_is_joined():
    assert parts(b"event: e\ndata: {\ndata:  1\ndata:}\n\n") == ("e", b"{\n 1\n}")
    assert parts(b"data: {}\r\n\r\n") == ("", b"{}")
    assert parts(b": keep-alive\n\n") == ("", b"")
    assert parts(b"data: 1\ndata: 2\n\n") == ("", b"1\n2")
    assert parts(b"event: ping\ndata: {}\n\n") == ("ping", b"{}")


def test_a_long_event_in_small_pieces_is_read_in_linear_time():
    cutter, piece = Cutter(), b"x" * 7
    for _ in range(200_000):
        assert not cutter.feed(piece)
    assert len(cutter.feed(b"\n\n")[0]) == 1_400_002
