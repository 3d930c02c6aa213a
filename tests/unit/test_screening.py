import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.gateway.dialect import Event, Text
from overwinter.gateway.placeholders import Vault
from overwinter.gateway.redaction import Action, Found, Rules, Search
from overwinter.gateway.refusal import ModelRefused
from overwinter.gateway.restoring import Restorer
from overwinter.gateway.screening import HELD, Screen

SHAPES = {
    "secret": r"sk-[a-z0-9]{8,200}",
    "email": r"[\w\\]+@\w+",
    "key": r"BEGIN[\s\S]*?(?:END|\Z)",
    "assigned": r"(?<=pass = )\w+",
}


class Shapes:
    name = "shapes"

    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]:
        return [
            [Found(*hit.span(), kind) for kind, shape in SHAPES.items() for hit in re.finditer(shape, text)]
            for text in texts
        ]


ALL: Mapping[str, Action] = {"secret": "mask", "key": "mask", "assigned": "mask"}
VAULT = Vault(b"k")
PLACE = VAULT.put("email", 'a"b@c')


def restorer(answer: Mapping[str, Action] = ALL) -> Restorer:
    rules = Rules(answer=answer)
    return Restorer(VAULT, Screen(Search([Shapes()], lambda: 0.0), rules, VAULT))


def said(text: str, cuts: Sequence[int], *, is_json: bool = False, answer: Mapping[str, Action] = ALL) -> str:
    borders = [0, *sorted(each % (len(text) + 1) for each in cuts), len(text)]
    events = [Event(wire=b"", texts=(Text("0", text[a:b], is_json),)) for a, b in pairwise(borders)]
    one = restorer(answer)
    out = [pair for event in (*events, Event(wire=b"", closes=("0",))) for pair in one.events(event)]
    assert len(out) == len(events) + 1
    return "".join(each.text for _, texts in out for each in texts)


SECRET = "sk-" + "0a" * 70
FILL = "some words in between " * 20
cuts = st.lists(st.integers(0, 10_000), max_size=40)


@given(cuts, st.integers(0, 300))
def test_a_value_is_masked_wherever_the_answer_is_cut(where: list[int], before: int) -> None:
    text = f"{FILL[:before]} {SECRET} {FILL} pass = hunter2 {PLACE} {FILL}BEGIN {FILL * 4} END {SECRET}"
    assert said(text, where) == (
        f'{FILL[:before]} [masked secret] {FILL} pass = [masked assigned] a"b@c {FILL}[masked key] [masked secret]'
    )


@given(cuts)
def test_masks_keep_arguments_valid_json(where: list[int]) -> None:
    text = json.dumps({"a": f'x\\"{SECRET}\\"', "b": "éric@mail", "k": 'BEGIN "', "end": "END", "p": PLACE + FILL})
    out = json.loads(said(text, where, is_json=True, answer={**ALL, "email": "mask"}))
    assert out["a"] == 'x\\"[masked secret]\\"'
    assert out["b"] == "[masked email]"
    assert out["p"] == 'a"b@c' + FILL


@pytest.mark.parametrize("before", range(HELD - 60, HELD + 20))
def test_no_escape_is_cut_where_a_mask_may_begin(before: int) -> None:
    text = json.dumps({"a": "x" * 120 + "\\\\" * 3 + '"' + "éric@mail " + "y" * before})
    out = json.loads("".join(said(text, list(range(0, 2000, 7)), is_json=True, answer={"email": "mask"})))
    assert out["a"].endswith("y" * before)
    assert "ric@mail" not in out["a"]


def test_a_blocked_class_ends_the_answer_and_the_error_has_no_value() -> None:
    with pytest.raises(ModelRefused, match="class 'secret', which must not come back") as refused:
        said(f"well, {SECRET}", [3], answer={"secret": "block"})
    assert SECRET not in str(refused.value)
    assert refused.value.refusal.why == "confidential"


def test_nothing_of_a_blocked_value_was_given_before() -> None:
    one = restorer({"secret": "block"})
    given_out: list[str] = []
    with pytest.raises(ModelRefused):
        given_out.extend(one.feed(Text("0", letter)) for letter in f"{FILL} {SECRET} {FILL}")
    assert FILL.startswith("".join(given_out))


def test_a_placeholder_is_no_finding() -> None:
    assert said(f"pass = {PLACE} ", []) == 'pass = a"b@c '


def test_what_stays_back_is_bounded() -> None:
    one = restorer()
    out = sum(len(one.feed(Text("0", "word "))) for _ in range(1000))
    assert 5000 - out <= 2 * HELD


def test_too_many_events_before_a_text_goes_on_end_the_answer() -> None:
    one = restorer()
    one.events(Event(wire=b"", texts=(Text("0", "begun"),)))
    with pytest.raises(ModelRefused, match="one choice at a time"):
        list(map(one.events, [Event(wire=b"")] * 20_000))


def test_events_that_end_without_an_end_give_all() -> None:
    one = restorer()
    assert one.events(Event(wire=b"1", texts=(Text("0", "begun "),))) == []
    assert [text.text for _, texts in one.left() for text in texts] == ["begun "]
