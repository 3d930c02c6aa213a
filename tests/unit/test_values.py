"""What crosses, as bytes; identifiers."""

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.events import Raised, describe
from overwinter.ids import ALPHABET, ID_LENGTH, Ids, from_bytes, to_bytes
from overwinter.values import DEPTH_MAX, Uncrossable, decode, encode

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.datetimes() | st.datetimes(timezones=st.just(UTC)) | st.dates() | st.timedeltas()
    | st.decimals(allow_nan=False)
)  # fmt: skip
hashable = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.text(), st.integers())
crossable = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.just("$"), inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
        | st.frozensets(hashable, max_size=3)
    ),
    max_leaves=12,
)


@given(crossable)
def test_what_crosses_comes_back_as_it_was(value):
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


@given(crossable)
def test_equal_values_give_equal_bytes_that_are_ascii(value):
    assert encode(decode(encode(value))) == encode(value)
    assert encode(value).isascii()


def test_odd_numbers_cross():
    assert math.isnan(decode(encode(math.nan)))
    assert decode(encode([math.inf, -math.inf])) == [math.inf, -math.inf]


def test_a_dict_keeps_its_order():
    assert list(decode(encode({"b": 1, "a": 2}))) == ["b", "a"]


@pytest.mark.parametrize(
    ("value", "path"),
    [({"a": [1, object()]}, r"value\['a'\]\[1\]"), (lambda: 1, "value"), ({1: {2: print}}, r"value\[1\]\[2\]")],
)
def test_what_cannot_cross_is_named_by_its_path(value, path):
    with pytest.raises(Uncrossable, match=path):
        encode(value)


def test_depth_and_cycles_are_bounded():
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(Uncrossable, match=str(DEPTH_MAX)):
        encode(cycle)


@given(st.lists(st.integers(0, 1 << 44), min_size=2, max_size=50))
def test_identifiers_ascend_whatever_the_clock_does(instants):
    clock = iter(instants)
    ids = Ids(lambda: next(clock))
    made = [ids.new() for _ in instants]
    assert made == sorted(set(made))


@given(st.binary(min_size=16, max_size=16))
def test_identifiers_and_their_bytes_are_one_to_one(raw):
    text = from_bytes(raw)
    assert len(text) == ID_LENGTH
    assert set(text) <= set(ALPHABET)
    assert to_bytes(text) == raw


@pytest.mark.parametrize("text", ["", "Z" * 26, "0" * 25, "0" * 25 + "U", "0" * 25 + "é", "-" + "0" * 25, "0_" * 13])
def test_what_is_no_identifier_is_refused(text):
    with pytest.raises(ValueError, match="identifier"):
        to_bytes(text)


def test_an_error_in_words_begins_with_status_and_code():
    raised = Raised(kind="RuntimeError", message="no", status=402, code="card declined", retry_after_s=2.0)
    assert describe(raised, 3) == "402 card_declined: no [call 3, not retryable, retry after 2 s]"


def test_the_types_that_cross_are_those_of_the_page():
    values = [date(2030, 1, 1), datetime(2030, 1, 1), timedelta(days=1), Decimal("1.10"), (1,), {1}, frozenset({2})]  # noqa: DTZ001 - a naive instant crosses too
    assert decode(encode(values)) == values


@given(st.text(st.characters(exclude_categories=()) | st.sampled_from('\\\ud83d\ude00u"')))
def test_half_a_character_becomes_the_sign_for_one_and_all_else_stays(text: str):
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert decode(encode(text)) == whole
    assert decode(encode({"a": [text]})) == {"a": [whole]}
