import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.adapters.dialects.request import elements
from overwinter.errors import UsageError
from overwinter.gateway.dialect import Event, Text
from overwinter.gateway.leaves import read, replaced
from overwinter.gateway.placeholders import LOOKS_LIKE, Vault
from overwinter.gateway.redaction import Action, Detector, Found, Redactor, Rules, Search, restored
from overwinter.gateway.refusal import ModelRefused
from overwinter.gateway.restoring import Restorer

KEY = b"k" * 32
NAMES = ("Ada Quill", "böse", "x@y.zz", 'he "said"', "AKIA2222", "5500 0000")
KINDS: Mapping[str, str] = dict(
    zip(NAMES, ("word:people", "word:people", "email", "word:quotes", "secret", "card"), strict=True)
)


class Exact:
    """Finds fixed values; counts the texts that it is given."""

    name = "exact"

    def __init__(self, kinds: Mapping[str, str] = KINDS) -> None:
        self.kinds = kinds
        self.seen = 0

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        self.seen += len(texts)
        return [
            [
                Found(hit.start(), hit.end(), kind)
                for value, kind in self.kinds.items()
                for hit in re.finditer(re.escape(value), text)
            ]
            for text in texts
        ]


def redactor(
    detector: Detector | None = None,
    rules: Mapping[str, Action] | None = None,
    vault: Vault | None = None,
    monotonic: Callable[[], float] = lambda: 0.0,
    search: Search | None = None,
) -> Redactor:
    asked = Rules(request={"secret": "mask", **(rules or {})})
    return Redactor(search or Search([detector or Exact()], monotonic), asked, vault or Vault(KEY), split=elements)


OPAQUE = frozenset({"id", "type", "signature", "data", "model"})


def redacted(value: object, **means: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    new = redactor(**means).redact({"messages": raw}, {"messages", "system"}, OPAQUE)
    return new.get("messages", raw).decode()


pieces = st.lists(
    st.sampled_from(
        (
            *NAMES,
            " ",
            ", ",
            "{",
            '"',
            "\\",
            "\n",
            "O",
            "OW_",
            "OW_EMAIL_",
            "\u20ac",
            "0123456789abcdef",
            "OW_X_0123456789abcdef",
        )
    )
).map("".join)
values = st.recursive(
    pieces | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(pieces, inner) | inner.map(json.dumps),
    max_leaves=12,
)


@given(values)
def test_what_is_replaced_is_restored_whole(value: object) -> None:
    vault = Vault(KEY)
    there = redacted(value, rules={"secret": "leave"}, vault=vault)
    assert meaning(json.loads(restored(there, vault))) == meaning(value)


def meaning(value: object) -> object:
    """A text of JSON is what it says: it comes back with the same meaning, a letter of it perhaps not escaped as it was."""
    match value:
        case list():
            return [meaning(each) for each in value]
        case dict():
            return {key: meaning(each) for key, each in value.items()}
        case str() if value.lstrip()[:1] in ("{", "["):
            try:
                return ("json", meaning(json.loads(value)))
            except ValueError:
                return value
        case _:
            return value


@given(st.lists(pieces), st.randoms(use_true_random=False))
def test_what_is_replaced_is_restored_in_a_stream_cut_anywhere(texts: list[str], cuts: random.Random) -> None:
    vault = Vault(KEY)
    there = json.loads(redacted(texts, rules={"secret": "leave"}, vault=vault))
    restorer = Restorer(vault)
    back = ["" for _ in texts]
    left = dict(enumerate(there))
    while left:
        at = cuts.choice(list(left))
        size = cuts.randint(0, 12)
        back[at] += restorer.feed(Text(str(at), left[at][:size]))
        left[at] = left[at][size:]
        if not left[at]:
            back[at] += restorer.close(str(at))
            del left[at]
    assert back == texts


def turns(count: int) -> list[dict[str, object]]:
    return [
        {
            "role": ("user", "assistant")[turn % 2],
            "content": f"{turn}: {NAMES[turn % 6]} \u00e9\n{NAMES[turn * 5 % 6]}",
            "n": 2.50,
        }
        for turn in range(count)
    ]


def test_each_turns_bytes_begin_with_the_last_turns() -> None:
    search = Search([Exact()], lambda: 0.0)
    before = b"["
    for count in range(1, 21):
        raw = json.dumps(turns(count), indent=1).replace("2.5", "2.50").encode()
        new = redactor(vault=Vault(KEY), search=search).redact({"messages": raw}, {"messages"}, OPAQUE)
        now = new.get("messages", raw)
        assert now.startswith(before)
        assert not any(name.encode() in now for name in NAMES)
        before = now.removesuffix(b"\n]")


def test_bytes_around_a_value_stay_as_they_came() -> None:
    raw = rb'[ {"b":1e400,  "a": 2.50, "t": "caf\u00e9 \/", "t": "x@y.zz"} ,-0 ]'
    there = redacted(raw)
    assert LOOKS_LIKE.sub("x@y.zz", there).encode() == raw


def test_a_key_that_is_there_twice_is_searched_twice() -> None:
    assert "x@y.zz" not in redacted(b'{"content": "x@y.zz", "content": "nothing"}')


def test_nothing_found_leaves_the_bytes_alone() -> None:
    assert redactor().redact({"messages": b'[ "nothing" ]'}, {"messages"}, OPAQUE) == {}


def test_what_is_opaque_goes_as_it_came_but_not_what_a_caller_calls_so() -> None:
    there = redacted(
        [
            {"type": "x@y.zz", "signature": "x@y.zz", "source": {"data": ["x@y.zz"]}},
            {"input": {"id": "a: x@y.zz"}},
            {"input": [{"id": "x@y.zz"}]},
            {"arguments": '{"id": "b: x@y.zz"}'},
        ]
    )
    assert there.count('"x@y.zz"') == 4
    assert "a: x@y.zz" not in there
    assert "b: x@y.zz" not in there


def test_an_image_in_an_address_goes_as_it_came_and_only_if_all_of_it_is_one() -> None:
    detector = Exact({"1//0AAAA": "secret"})
    assert (
        redacted(["data:image/png;base64,AB1//0AAAA=="], detector=detector) == '["data:image/png;base64,AB1//0AAAA=="]'
    )
    assert "masked" in redacted(["data:image/png;base64,AB 1//0AAAA=="], detector=detector)
    assert "masked" in redacted(["see data:image/png;base64,AB1//0AAAA=="], detector=detector)


def test_a_text_of_json_stays_json() -> None:
    inner = json.dumps({"to": 'he "said"', "deep": json.dumps({"cc": "x@y.zz", "card": "5500 0000"}), "x@y.zz": 1})
    there = json.loads(redacted([{"arguments": inner}]))[0]["arguments"]
    arguments = json.loads(there)
    assert LOOKS_LIKE.fullmatch(arguments["to"])
    assert LOOKS_LIKE.fullmatch(json.loads(arguments["deep"])["cc"])
    assert "x@y.zz" not in there


def test_a_long_number_is_searched_and_becomes_a_text() -> None:
    there = redacted(
        b'[{"arguments": {"card": 5500000000, "other": 123456789012, "at": -55000000.00}}]',
        detector=Exact({"5500000000": "card"}),
    )
    assert re.fullmatch(
        r'\[\{"arguments": \{"card": "OW_CARD_\w{16}", "other": 123456789012, "at": -55000000\.00\}\}\]', there
    )


@pytest.mark.parametrize("split", range(60))
def test_arguments_in_a_stream_are_json_wherever_they_are_cut(split: int) -> None:
    vault = Vault(KEY)
    placeholder = vault.put("word", 'he "said"\n')
    written = json.dumps({"to": f"a {placeholder}b", "O": "OW"})
    restorer = Restorer(vault)
    events = [
        *restorer.events(Event(wire=b"", texts=(Text("0", written[:split], is_json=True),))),
        *restorer.events(Event(wire=b"", texts=(Text("1", "O"),))),
        *restorer.events(Event(wire=b"", texts=(Text("0", written[split:], is_json=True),))),
        *restorer.events(Event(wire=b"", closes=("0",))),
        *restorer.events(Event(wire=b"", kind="terminal")),
    ]
    said = "".join(text.text for _, texts in events for text in texts if text.channel == "0")
    assert json.loads(said) == {"to": 'a he "said"\nb', "O": "OW"}
    assert "".join(text.text for _, texts in events for text in texts if text.channel == "1") == "O"
    assert len(events) == 5


def test_only_what_may_begin_a_placeholder_waits() -> None:
    restorer = Restorer(Vault(KEY))
    assert restorer.feed(Text("0", "all of this O")) == "all of this "
    assert restorer.feed(Text("0", "W_EMAIL_01")) == ""
    assert restorer.feed(Text("0", "g")) == "OW_EMAIL_01g"
    assert restorer.feed(Text("0", "OW_EMAIL_0123456789abcdef")) == "OW_EMAIL_0123456789abcdef"


def test_events_keep_their_order_and_none_waits_for_ever() -> None:
    restorer = Restorer(Vault(KEY))
    sent = [
        Event(wire=b"0", texts=(Text("0", "now OW"),)),
        *(Event(wire=b"%d" % i, texts=(Text("1", "x"),)) for i in range(1, 200)),
    ]
    out = [pair for event in sent for pair in restorer.events(event)]
    assert [event.wire for event, _ in out] == [event.wire for event in sent]
    assert out[0][1][0].text == "now OW"


def test_a_secret_is_masked_and_cannot_come_back() -> None:
    vault = Vault(KEY)
    there = redacted(["AKIA2222 x@y.zz"], vault=vault)
    assert re.fullmatch(r'\["\[masked secret\] OW_EMAIL_[0-9a-f]{16}"\]', there)
    assert list(vault.values().values()) == ["x@y.zz"]
    with pytest.raises(UsageError, match="never restored"):
        Rules(request={"secret": "replace"})
    with pytest.raises(UsageError, match="never restored"):
        Rules(request={})


def test_of_overlapping_values_nothing_stays() -> None:
    kinds = {"abcdef": "long", "defghi": "tail", "cd": "secret", "xy": "long", "xyz": "longer"}
    vault = Vault(KEY)
    there = redacted(["abcdefghi xyz"], detector=Exact(kinds), vault=vault)
    assert there.startswith('["[masked secret] OW_LONGER_')
    assert list(vault.values().values()) == ["xyz"]


def test_an_unsearched_class_covers_no_other() -> None:
    there = redacted(["x@y.zz"], detector=Exact({"x@y.zz": "email", "x@y": "word:a"}), rules={"email": "leave"})
    assert re.fullmatch(r'\["OW_WORD_\w{16}\.zz"\]', there)


def test_other_runs_have_other_placeholders() -> None:
    assert redacted(["x@y.zz"], vault=Vault(b"a" * 32)) != redacted(["x@y.zz"], vault=Vault(b"b" * 32))


def test_a_vault_is_bounded_and_forgets_what_was_longest_unseen() -> None:
    vault = Vault(KEY, values_max=2)
    first, _, _, _ = vault.put("a", "1"), vault.put("a", "2"), vault.put("a", "1"), vault.put("a", "3")
    assert sorted(vault.values().values()) == ["1", "3"]
    assert vault.restored(first) == "1"


def test_what_was_searched_is_not_searched_again() -> None:
    exact, long = Exact(), "two x@y.zz, " + "and no more, " * 200
    search = Search([exact], lambda: 0.0)
    for _ in range(3):
        redacted([{"content": "one"}, {"content": long, "mark": "here"}], search=search)
    assert exact.seen == 4  # "mark" is a key that nobody knows
    redacted([{"content": "three"}, {"content": "one"}, {"content": long}], search=search)
    assert exact.seen == 5


def test_only_so_much_is_remembered() -> None:
    exact = Exact()
    search = Search([exact], lambda: 0.0, memo_max=10)
    for _ in range(2):
        redacted([f"{number} x@y.zz" for number in range(50)], search=search)
    assert exact.seen >= 90
    assert len(search.parts._known) <= 10


class Fails:
    name = "broken"

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        raise ValueError(f"cannot read {texts}")


class Short:
    name = "short"

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        return []


def late() -> Callable[[], float]:
    ticks = iter(range(0, 100, 6))
    return lambda: float(next(ticks))


@pytest.mark.parametrize(
    ("means", "says"),
    [
        (
            {"detector": Fails()},
            "the search for broken failed (ValueError) at or after messages[0].content: nothing was sent",
        ),
        ({"detector": Short()}, "the search for short failed (too few answers) at or after messages[0]"),
        ({"monotonic": late()}, "the search for confidential values took more than 5 s, last in exact"),
        (
            {"rules": {"email": "block"}},
            "messages[0].content.*[1] has a value of class 'email', which must not be sent",
        ),
    ],
)
def test_in_doubt_nothing_is_sent_and_no_error_has_the_value(means: dict[str, object], says: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        redacted([{"content": {"Ada Quill": ["a", "x@y.zz"]}}], **means)
    assert says in refused.value.refusal.message
    assert refused.value.refusal.why == "confidential"
    assert refused.value.__context__ is None
    assert not any(name in str(refused.value) for name in NAMES)


@pytest.mark.parametrize("raw", [b'{"a": x@y.zz', b'["\xff x@y.zz"]', b"[" * 100_000, b"[1] x@y.zz"])
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ModelRefused) as refused:
        redacted(raw)
    assert refused.value.refusal.why == "invalid"
    assert "x@y.zz" not in str(refused.value)


@given(values)
def test_every_leaf_is_found_where_it_stands(value: object) -> None:
    document = read(json.dumps(value), "top", frozenset())
    same = [(leaf, leaf.text if leaf.is_number else json.dumps(leaf.text)) for leaf in document.leaves]
    if "." in document.text or "e+" in document.text:  # 1000000.0 is 1000000
        again, text = (json.loads(each, parse_int=float) for each in (replaced(document, same), document.text))
        assert again == text
    else:
        assert replaced(document, same) == document.text
