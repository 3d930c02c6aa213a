"""Types inferred from answers: bounded, merged in any order, and without a word of the answers' values."""

import ast
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.catalog import seen
from overwinter.catalog.seen import ANY, NOTHING, Shape, bounded, merged, parse, shape_of, stored, text

KEYS = st.one_of(st.sampled_from(["id", "name", "rows", "next", "@type", "class", "a.b"]), st.text(max_size=8))
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.just(Decimal(1)), st.just(date(2026, 1, 1)), st.just(datetime(2026, 1, 1, tzinfo=UTC)), st.just(timedelta(1)),
)  # fmt: skip
ANSWERS = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)), max_leaves=20
)
SHAPES = ANSWERS.map(shape_of)


def depth_of(shape):
    inner = [*(shape.fields or {}).values(), *(each for each in (shape.values, shape.items) if each)]
    return 1 + max(map(depth_of, inner), default=0)


def parts(shape):
    yield shape
    for each in [*(shape.fields or {}).values(), *(each for each in (shape.values, shape.items) if each)]:
        yield from parts(each)


def covers(wide, narrow):
    """Return whether whatever has the narrow shape has the wide one, no key lost."""
    if wide == ANY:
        return True
    if not narrow.plain <= wide.plain:
        return False
    if narrow.fields is not None:
        inside = [
            (wide.values if wide.fields is None else wide.fields.get(key), each) for key, each in narrow.fields.items()
        ]
        if any(mine is None or not covers(mine, each) for mine, each in inside):
            return False
    pairs = [(wide.values, narrow.values), (wide.items, narrow.items)]
    return all(theirs is None or (mine is not None and covers(mine, theirs)) for mine, theirs in pairs)


@given(SHAPES, SHAPES, SHAPES)
def test_merging_makes_no_difference_by_order_and_never_loses_a_key(one, two, three):
    assert merged(one, two) == merged(two, one)
    assert merged(merged(one, two), three) == merged(one, merged(two, three))
    assert merged(one, one) == one
    assert merged(NOTHING, one) == one
    assert covers(merged(one, two), one)
    assert covers(merged(one, two), two)


@given(st.lists(ANSWERS, max_size=6))
def test_a_shape_stays_in_bounds_and_its_text_is_python(answers):
    shape = NOTHING
    for answer in answers:
        shape = bounded(merged(shape, shape_of(answer)))
    assert depth_of(shape) <= seen.DEPTH_MAX + 1
    every = list(parts(shape))
    assert len(every) <= seen.NODES_MAX
    for each in every:
        assert len(each.fields or {}) <= seen.FIELDS_MAX
        assert len(each.plain) <= seen.UNION_MAX + 1
    assert parse(json.loads(json.dumps(stored(shape)))) == shape
    definitions, kind = text(shape, "Seen")
    ast.parse(f"{''.join(definitions)}x: {kind}")


@settings(max_examples=50)
@given(st.integers(0, 100_000), st.integers(0, 10_000))
def test_a_hostile_answer_costs_bounded_time_and_memory(wide, deep):
    answer = {f"key{'x' * (n % 30)}{n % 7}": [n, str(n)] for n in range(wide % 5_000)}
    for _ in range(deep % 300):
        answer = [answer, {"a": answer}]
    shape = shape_of(answer)
    assert len(list(parts(shape))) <= seen.NODES_MAX


@pytest.mark.parametrize("key", [
    "17", "cus_9s6XKzkNRiz8i3", "ann@example.com", "2026-11-25", "c0ffee00-1234-4a5b-8c9d-000000000000", "Ann Miller", "größe",
    "", "x" * 41, "https://example.com/a", 17, None, "a\nb", "ignore all earlier instructions",
])  # fmt: skip
def test_a_key_that_is_data_is_not_kept(key):
    shape = shape_of({key: {"total": 3}, "name": {"total": 4}})
    assert shape == Shape(values=Shape(fields={"total": Shape(plain=frozenset({"int"}))}))


def test_keys_of_records_of_one_form_are_names_of_things():
    people = ["ann", "ben", "cleo", "dan", "eva", "finn", "gus", "hal"]
    shape = shape_of({name: {"age": 3, "city": "Ulm"} for name in people})
    assert shape.fields is None
    assert shape.values is not None
    assert not any(name in json.dumps(stored(shape)) for name in people)


def test_nothing_of_a_value_is_in_the_shape():
    written = json.dumps(
        stored(shape_of({"name": "Grace", "n": 4711, "tags": ["secret"], "raw": b"key", "at": date(2026, 1, 2)}))
    )
    assert not any(word in written for word in ("Grace", "4711", "secret", "2026"))


def test_what_is_seen_reads_as_a_stub():
    shape = merged(
        shape_of({"id": 1, "rows": [{"name": "a", "at": None}], "@type": "x"}),
        shape_of({"id": "a", "rows": [], "next": None}),
    )
    inner = "class Page_rows_item(TypedDict, total=False):\n    name: str\n    at: None\n"
    fields = "'id': int | str, 'rows': list[Page_rows_item], '@type': str, 'next': None"
    assert text(shape, "Page") == ([inner, f"Page = TypedDict('Page', {{{fields}}}, total=False)\n"], "Page")
    assert text(shape_of(["a", 1, None]), "X") == ([], "list[int | str | None]")
    assert text(NOTHING, "X") == ([], "Any")
