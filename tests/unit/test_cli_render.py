"""What people read: nothing that a program says can pass for words of ours."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overwinter.faces.cli.render import event_line, is_of_goal, outcome, safe, safe_lines, show, table
from overwinter.faces.wire import readable

ANY_TEXT = st.text(st.characters(), max_size=40)  # half characters too


@given(ANY_TEXT)
def test_safe_text_is_one_line_that_moves_nothing_and_prints_everywhere(text):
    shown = safe(text)
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
    assert len(shown.splitlines()) <= 1
    shown.encode()


def test_what_nobody_sees_is_shown_as_what_it_is():
    hidden = "\u00ad\u180e\u200b\u200c\u200d\u2060\u2064\u206f\ufeff\U000e0041"
    assert safe(f"a{hidden}b").isascii()
    assert safe_lines(f"a{hidden}b").isascii()


@given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40))
def test_ordinary_text_is_shown_as_it_is(text):
    assert safe(text) == text
    assert safe_lines(f"{text}\n\t{text}").split("\n")[0] == text


def event(kind, /, **body):
    return {"position": 0, "at": "2030-01-01T10:20:30.456Z", "kind": kind, "body": body}


FORGED = "x\n10:00:00.000 finished: 1\x1b[2J\r\u2028y"


@pytest.mark.parametrize("fact", [
    event("called", index=0, function=FORGED, arguments={FORGED: FORGED}),
    event("denied", index=0, function="a.b", reason=FORGED),
    event("answered", index=0, value=FORGED, by=FORGED),
    event("answered", index=0, error={"kind": FORGED, "message": FORGED}),
    event("retried", index=0, attempt=1, error={"message": FORGED}),
    event("unknown", index=0, why=FORGED),
    event("message", value=FORGED),
    event("failed", kind=FORGED, message=FORGED, line=3),
    event("finished", value=FORGED),
    event("cancelled", by=FORGED, reason=FORGED),
    event("created", agent=FORGED, inputs={FORGED: FORGED}),
], ids=lambda fact: fact["kind"])  # fmt: skip
def test_an_event_is_one_line_whatever_a_program_put_into_it(fact):
    line = event_line(fact, {})
    assert line is not None
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_each_printed_line_is_marked_as_printed():
    line = event_line(event("printed", text="one\ttab\n10:00:00.000 finished: 1\x1b[31m\n"), {})
    first, second = str(line).split("\n")
    assert first.endswith("|  one     tab")
    assert second == "|  10:00:00.000 finished: 1\\x1b[31m"


def test_an_answer_names_the_function_of_its_call():
    names: dict[int, str] = {}
    event_line(event("called", index=7, function="billing.charge", arguments={}), names)
    assert "7 billing.charge = 3" in str(event_line(event("answered", index=7, value=3), names))


def test_columns_are_aligned_and_a_cell_never_breaks_the_table():
    shown = table([{"a": "x\ny", "b": None}, {"a": "z" * 200, "b": "w" * 200}], ("a", "b")).split("\n")
    assert len(shown) == 3
    assert shown[0].split() == ["A", "B"]
    assert shown[2].index("w") == shown[0].index("B")
    assert shown[2].endswith("w" * 200)
    assert "z..." in shown[2]


def run(**changes):
    base = {
        "id": "01ABCDEFGHJKMNPQRSTVWXYZ01", "name": "charge", "agent": "default", "status": "live", "turns": 1, "calls": 1,
        "created": "2030-01-01T10:20:30.456Z", "reason": "waits for ada to answer since 2 h", "open_calls": [], "result": None,
    }  # fmt: skip
    return {**base, **changes}


def question(text, options):
    return {"question": "01ABCDEFGHJKMNPQRSTVWXYZ01:4", "person": "ada", "text": text, "options": options, "state": "intended",
            "arguments": {}, "function": "tools.ask", "due": None}  # fmt: skip


def test_a_question_is_shown_with_a_command_that_a_shell_takes():
    shown = show(run(open_calls=[question("Refund?", ["yes, please", "no"])]), [], " --home '/a b'")
    assert "overwinter --home '/a b' answer TVWXYZ01:4 'yes, please'    (or: no)" in shown


def test_a_question_cannot_forge_the_command_below_it():
    shown = show(run(open_calls=[question("ok?\n    overwinter answer OTHER:1 yes", ["$(rm -rf /)"])]), [], "")
    commands = [line for line in shown.split("\n") if line.strip().startswith("overwinter answer")]
    assert len(commands) == 1
    assert commands[0].endswith("'$(rm -rf /)'")


def test_a_failed_run_shows_its_error_and_its_line():
    result = {
        "kind": "ZeroDivisionError",
        "message": "division by zero",
        "line": 2,
        "traceback": "line 2, in <module>: 1/0",
    }
    shown = show(run(status="failed", result=result), [event("failed", **result)], "")
    assert "error: ZeroDivisionError: division by zero" in shown
    assert "    line 2, in <module>: 1/0" in shown
    assert "last events:" in shown


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | ANY_TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    )
)
def test_every_value_is_shown_on_one_line_of_bounded_length(value):
    line = str(event_line(event("finished", value=value), {}))
    assert len(line.splitlines()) == 1
    assert len(line) < 260
    assert json.dumps(value)


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("gated", {"person": "boss", "reason": "it writes"}, "?  4 pay.send waits for boss to approve it: it writes"),
        ("approved", {"by": "boss", "reason": "", "is_enough": True}, "<- 4 pay.send approved by boss"),
        ("approved", {"by": "a", "reason": "ok", "is_enough": False}, "<- 4 pay.send approved by a, more must ok"),
        ("rejected", {"by": "boss", "reason": "no"}, "<- 4 pay.send rejected by boss no"),
    ],
)
def test_what_people_say_of_a_call_is_one_line(kind, body, words):
    event = {"kind": kind, "body": {"index": 4, **body}, "at": "2030-01-01T00:00:00.000Z"}
    line = event_line(event, {4: "pay.send"})
    assert line is not None
    assert line.endswith(words)


def test_keys_that_read_alike_are_all_shown():
    assert readable({1: "a", "1": "b"}) == [[1, "a"], ["1", "b"]]
    assert readable({1: "a"}) == {"1": "a"}


ENDED = {"end": "done", "answer": "It is 42.", "why": "", "steps": 2, "cost_usd": 0.01, "last": None}


def test_what_a_goal_ends_with_is_told_from_whatever_a_program_ends_with():
    assert is_of_goal(ENDED)
    assert "It is 42." in outcome(ENDED, "RUN12345")
    for key, value in {"steps": "2", "cost_usd": "free", "answer": None, "why": None, "end": 1}.items():
        assert not is_of_goal({**ENDED, key: value})
    assert not is_of_goal([ENDED])


def test_a_goal_whose_model_is_down_says_how_it_goes_on():
    said = outcome({**ENDED, "end": "unavailable", "answer": None, "why": "mock cannot be reached"}, "RUN12345")
    assert said.endswith("mock cannot be reached: go on with --after RUN12345 when it is back")
