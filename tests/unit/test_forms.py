"""What a server asks in the middle of a call, as a question of ours, and a person's answer as it wants it."""

import pytest

from overwinter.adapters.mcp_servers.forms import answered, asked


def form(required=(), **fields):
    return {"message": "m", "requestedSchema": {"type": "object", "properties": fields, "required": list(required)}}


TITLED = {"type": "string", "oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]}


@pytest.mark.parametrize(("params", "options"), [
    (form(x={"type": "boolean"}), ["yes", "no", "decline"]),
    (form(x={"type": "string", "enum": ["p", "q"]}), ["p", "q", "decline"]),
    (form(x=TITLED), ["a", "b", "decline"]),
    (form(x={"type": "string"}), None),
    (form(x={"type": "boolean"}, y={"type": "boolean"}), None),
    ({"message": "m", "mode": "url", "url": "https://example.com"}, ["done", "decline"]),
    ({"message": "m", "requestedSchema": "junk"}, None),
])  # fmt: skip
def test_a_choice_is_offered_as_options_and_all_else_as_free_text(params, options):
    text, found = asked(params)
    assert (text.startswith("m"), found) == (True, options)


@pytest.mark.parametrize(("params", "text", "content"), [
    (form(x={"type": "boolean"}), "yes", {"x": True}),
    (form(x={"type": "string"}), "12", {"x": "12"}),
    (form(x={"type": "integer"}), "12", {"x": 12}),
    (form(x={"type": "string"}), '{"x": "y"}', {"x": "y"}),
    (form(("a",), a={"type": "string"}, b={"type": "number"}), '{"a": "t", "b": 1.5}', {"a": "t", "b": 1.5}),
    (form(a={"type": "junk"}), "anything", {"a": "anything"}),
])  # fmt: skip
def test_an_answer_is_given_in_the_form_that_was_asked_for(params, text, content):
    assert answered(params, text) == {"action": "accept", "content": content}


def test_a_person_may_decline_or_open_an_address():
    assert answered(form(x={"type": "string"}), " decline ") == {"action": "decline"}
    assert answered({"message": "m", "mode": "url", "url": "u"}, "done") == {"action": "accept"}


@pytest.mark.parametrize(("params", "text", "words"), [
    (form(x={"type": "integer"}), "many", "x: "),
    (form(("a",), a={"type": "string"}, b={"type": "string"}), "{}", "a is missing"),
    (form(a={"type": "string"}, b={"type": "string"}), '{"c": 1}', "nobody asked for c"),
    (form(a={"type": "string"}, b={"type": "string"}), "text", "no JSON"),
    (form(a={"type": "string"}, b={"type": "string"}), "[1]", "no JSON object"),
    (form(x={"type": "string", "enum": ["p"]}), "q", "x: "),
])  # fmt: skip
def test_an_answer_that_does_not_fit_says_why(params, text, words):
    with pytest.raises(ValueError, match=words):
        answered(params, text)


def test_a_question_has_no_control_characters_and_is_bounded():
    text, _ = asked({"message": "\x1b[31m" + "x" * 90_000})
    assert "\x1b" not in text
    assert len(text) < 3_000
