"""What is known of an answer that was cut, or that says nothing of its counts."""

import json
from dataclasses import replace

from overwinter.adapters.dialects import dialects
from overwinter.gateway.dialect import DialectName
from overwinter.gateway.tap import Tap
from provider import Plan, Tokens
from provider.provider import render_events, render_whole

PLAN = Plan(
    id="mock",
    model="m",
    pieces=("four",) * 30,
    tool="",
    tokens=Tokens(fresh=9, output=50, thinking=20),
    thinking_each="hmm ",
)
PATHS: dict[DialectName, str] = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}


def tapped(name: DialectName, wires: list[bytes], *, is_stream: bool) -> Tap:
    asked = dialects()[name].read("POST", PATHS[name], {}, json.dumps({"model": "m", "stream": is_stream}).encode())
    reader, tap = dialects()[name].reader(asked, is_stream=is_stream), Tap(asked)
    for event in [*(each for wire in wires for each in reader.feed(wire)), *reader.close()]:
        tap.see(event)
    return tap


def test_an_answer_in_one_piece_that_says_no_counts_is_estimated_by_its_text():
    for name in PATHS:
        used = tapped(name, [render_whole(name, replace(PLAN, says="nothing"))], is_stream=False).used
        assert (used.output, used.source) == (30, "estimated")


def test_an_answer_that_is_cut_is_estimated_by_what_came_of_it():
    for name in PATHS:
        wires = [each.wire for each in render_events(name, PLAN)][:-3]
        used = tapped(name, wires, is_stream=True).used
        assert used.source == "estimated"
        assert used.output >= 28


def test_what_was_thought_is_in_the_estimate_of_a_cut_answer():
    wires = [each.wire for each in render_events("messages", PLAN)]
    assert tapped("messages", wires[:-2], is_stream=True).used.output == 50
    whole = tapped("messages", wires, is_stream=True).used
    assert (whole.output, whole.source) == (50, "provider")
