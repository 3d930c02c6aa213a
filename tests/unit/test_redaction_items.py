"""What comes in a stream in one piece, items of Responses of thirty kinds above all, is treated as in a whole answer."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overwinter.gateway.redaction import Action
from overwinter.gateway.refusal import ModelRefused
from redaction_kit import WORD, Pieces, answered, asked_of, cleaned_of, events_in, placeholder_of

EMAIL = "ada.quill@corp-mail7.org"
SECRET = "ghp_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX"
SAID = f"mail {EMAIL} of {WORD}"
IMAGE = "iVBORw0KGgo" + "A1b2" * 200
USAGE = {"input_tokens": 1, "output_tokens": 1}


def items_of(text: str) -> Sequence[dict[str, Any]]:
    """Return an item of each kind that has texts, with one in each place (openai 3.52, `ResponseOutputItem`)."""
    arguments = json.dumps({"to": text, "n": 1})
    outcome = {"type": "exit", "exit_code": 0}
    return [
        {"type": "message", "id": "i", "role": "assistant", "content": [
            {"type": "output_text", "text": text, "logprobs": [], "annotations": [{"type": "url_citation", "url": "https://x.org", "title": text, "start_index": 0, "end_index": 1}]},
            {"type": "refusal", "refusal": text},
        ]},
        {"type": "reasoning", "id": "i", "summary": [{"type": "summary_text", "text": text}], "content": [{"type": "reasoning_text", "text": text}], "encrypted_content": IMAGE},
        {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": arguments},
        {"type": "custom_tool_call", "id": "i", "call_id": "c", "name": "f", "input": text},
        {"type": "shell_call", "id": "i", "call_id": "c", "action": {"commands": [text, "ls", text], "timeout_ms": 1}},
        {"type": "shell_call_output", "id": "i", "call_id": "c", "output": [{"stdout": text, "stderr": text, "outcome": outcome}]},
        {"type": "local_shell_call", "id": "i", "call_id": "c", "action": {"type": "exec", "command": ["mail", text], "env": {"WHO": text}, "working_directory": text}},
        {"type": "computer_call", "id": "i", "call_id": "c", "pending_safety_checks": [], "action": {"type": "type", "text": text}},
        {"type": "computer_call", "id": "i", "call_id": "c", "pending_safety_checks": [{"id": "s", "message": text}], "actions": [{"type": "type", "text": text}]},
        {"type": "apply_patch_call", "id": "i", "call_id": "c", "operation": {"type": "update_file", "path": text, "diff": f"+{text}"}},
        {"type": "mcp_call", "id": "i", "name": "f", "server_label": "s", "arguments": arguments, "output": text, "error": {"type": "http_error", "message": text}},
        {"type": "mcp_approval_request", "id": "i", "name": "f", "server_label": "s", "arguments": arguments},
        {"type": "mcp_list_tools", "id": "i", "server_label": "s", "tools": [{"name": "f", "description": text, "input_schema": {}}]},
        {"type": "code_interpreter_call", "id": "i", "code": text, "container_id": "c", "outputs": [{"type": "logs", "logs": text}]},
        {"type": "web_search_call", "id": "i", "action": {"type": "search", "query": text, "queries": [text]}},
        {"type": "file_search_call", "id": "i", "queries": [text], "results": [{"file_id": "f", "filename": text, "text": text, "attributes": {"who": text}}]},
        {"type": "program", "id": "i", "call_id": "c", "code": text, "fingerprint": IMAGE},
        {"type": "program_output", "id": "i", "call_id": "c", "result": text},
        {"type": "image_generation_call", "id": "i", "result": IMAGE, "revised_prompt": text},
        {"type": "kind_of_next_year", "id": "i", "does": [{"what": text}]},
    ]  # fmt: skip


def response(items: Sequence[dict[str, Any]], status: str = "completed", **fields: Any) -> dict[str, Any]:
    usage = USAGE if status == "completed" else None
    return {"id": "resp_1", "object": "response", "status": status, "output": items, "usage": usage, **fields}


def streamed(*events: Mapping[str, Any]) -> bytes:
    rows = enumerate(events)
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps({**each, "sequence_number": number}).encode())
        for number, each in rows
    )


def of_items(items: Sequence[dict[str, Any]]) -> bytes:
    made = [
        {"type": f"response.output_item.{state}", "output_index": index, "item": item}
        for index, item in enumerate(items)
        for state in ("added", "done")
    ]
    return streamed(
        {"type": "response.created", "response": response([], "in_progress")},
        *made,
        {"type": "response.completed", "response": response(items)},
    )


def answers_of(*wires: bytes, rules: Mapping[str, Action] | None = None) -> Sequence[bytes]:
    """Return what a client gets for these answers, each of which has `EMAIL` and `WORD` where it is to be in its own."""
    got: list[bytes] = []
    for wire in wires:
        is_stream = not wire.startswith(b"{")
        cleaned = cleaned_of(asked_of("responses", SAID, is_stream=is_stream), rules)
        there = cleaned.asked.top["input"].decode()
        said = wire
        for value, label in ((EMAIL, "EMAIL"), (WORD, "WORD")):
            once = json.dumps(value)[1:-1]
            for written in (json.dumps(once)[1:-1], once):
                said = said.replace(written.encode(), placeholder_of(label, there).encode())
        got.append(answered(cleaned, Pieces(said, [], is_stream=is_stream)))
    return got


@pytest.mark.claim("M6.redact.restored")
@pytest.mark.parametrize("rules", [{}, {"card": "mask"}])
def test_each_item_of_a_stream_is_restored_as_it_is_in_a_whole_answer(rules):
    items = items_of(SAID)
    stream, whole = answers_of(of_items(items), json.dumps(response(items)).encode(), rules=rules)
    assert b"OW_" not in stream + whole
    events = list(events_in(stream))
    assert json.loads(whole)["output"] == items == events[-1]["response"]["output"]
    for state in ("added", "done"):
        assert [each["item"] for each in events if each["type"] == f"response.output_item.{state}"] == items


@pytest.mark.claim("M6.redact.no_leak")
def test_an_event_in_several_lines_is_masked_and_restored_as_one_in_one():
    def in_lines(wire: bytes) -> bytes:
        found = b""
        for each in events_in(wire):
            data = "".join(f"data: {line}\n" for line in json.dumps(each, indent=1).splitlines())
            found += f"event: {each['type']}\n{data}\n".encode()
        return found

    said = of_items(items_of(f"{SAID} {SECRET} end"))
    (one,), (several,) = (
        answers_of(said, rules={"secret": "mask"}),
        answers_of(in_lines(said), rules={"secret": "mask"}),
    )
    assert SECRET.encode() not in several
    assert list(events_in(several)) == list(events_in(one))


@pytest.mark.claim("M6.redact.no_leak")
def test_a_call_that_a_stream_of_messages_begins_whole_is_masked():
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"who": f"x {SECRET}"}}
    rows: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": USAGE}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": USAGE},
        {"type": "message_stop"},
    ]
    wire = b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in rows)
    cleaned = cleaned_of(asked_of("messages", SAID, is_stream=True), {"secret": "mask"})
    got = answered(cleaned, Pieces(wire, [], is_stream=True))
    assert SECRET.encode() not in got
    assert [each["type"] for each in events_in(got)] == [each["type"] for each in rows]


@pytest.mark.claim("M6.redact.no_leak")
def test_each_item_of_a_stream_is_masked_as_it_is_in_a_whole_answer():
    items = items_of(f"token {SECRET} end")
    stream, whole = answers_of(of_items(items), json.dumps(response(items)).encode(), rules={"secret": "mask"})
    assert SECRET.encode() not in stream + whole
    events, expected = list(events_in(stream)), items_of("token [masked secret] end")
    assert json.loads(whole)["output"] == expected == events[-1]["response"]["output"]
    assert [each["item"] for each in events if each["type"].endswith("item.done")] == expected


@pytest.mark.claim("M6.redact.no_leak")
@pytest.mark.parametrize("item", items_of(f"token {SECRET} end"), ids=lambda item: item["type"])
def test_a_blocked_value_in_an_item_ends_a_stream(item):
    with pytest.raises(ModelRefused, match="must not come back") as refused:
        answers_of(of_items([item]), rules={"secret": "block"})
    assert SECRET not in str(refused.value)


DELTAS: Mapping[str, Mapping[str, Any]] = {
    "response.output_text": {"content_index": 0},
    "response.refusal": {"content_index": 0},
    "response.reasoning_text": {"content_index": 0},
    "response.reasoning_summary_text": {"summary_index": 0},
    "response.function_call_arguments": {},
    "response.mcp_call_arguments": {},
    "response.custom_tool_call_input": {},
    "response.code_interpreter_call_code": {},
    "response.shell_call_command": {"command_index": 0},
    "response.apply_patch_call_operation_diff": {},
    "response.audio.transcript": {},
    "response.kind_of_next_year": {},
}
sizes = st.sampled_from([1, 3, 7, 26, 200])


@pytest.mark.claim("M6.redact.restored")
@pytest.mark.parametrize("kind", DELTAS)
@pytest.mark.parametrize("is_ended", [True, False], ids=["ended", "cut"])
@given(size=sizes, rules=st.sampled_from([{}, {"secret": "mask"}]))
@settings(max_examples=10)
def test_pieces_of_every_kind_never_have_half_a_placeholder(kind, size, rules, *, is_ended):
    cleaned = cleaned_of(asked_of("responses", SAID, is_stream=True), rules)
    place = placeholder_of("EMAIL", cleaned.asked.top["input"].decode())
    where = {"output_index": 0, "item_id": "i", **DELTAS[kind]}
    said = f"mail {place} and {place}"
    made = [{"type": f"{kind}.delta", **where, "delta": said[at : at + size]} for at in range(0, len(said), size)]
    item = {"type": "output_item", "id": "i"}
    done = [{"type": f"{kind}.done", **where, "text": said}] if is_ended else []
    wire = streamed(*made, *done, {"type": "response.output_item.done", "output_index": 0, "item": item}, END)
    got = list(events_in(answered(cleaned, Pieces(wire, [], is_stream=True))))
    assert "".join(each["delta"] for each in got if "delta" in each) == f"mail {EMAIL} and {EMAIL}"
    assert [each["type"] for each in got[-2:]] == ["response.output_item.done", "response.completed"]
    assert [each["sequence_number"] for each in got] == list(range(len(got)))


END = {"type": "response.completed", "response": response([])}


@pytest.mark.parametrize("rules", [{}, {"secret": "mask"}])
@given(size=sizes)
@settings(max_examples=10)
def test_pieces_side_by_side_are_restored_each_by_itself(rules, size):
    cleaned = cleaned_of(asked_of("responses", SAID, is_stream=True), rules)
    place = placeholder_of("EMAIL", cleaned.asked.top["input"].decode())
    told = [f"{name}: {place} {'x' * 400 if rules else ''}" for name in ("out", "err", "second")]
    rows = [(0, {"stdout": told[0]}), (0, {"stderr": told[1]}), (1, {"stdout": told[2], "stderr": None})]
    kind = "response.shell_call_output_content"
    made = [
        {"type": f"{kind}.delta", "output_index": 0, "command_index": command, "delta": {name: text and text[at : at + size] for name, text in row.items()}}
        for at in range(0, max(map(len, told)), size)
        for command, row in rows
    ]  # fmt: skip
    done = [
        {"type": f"{kind}.done", "output_index": 0, "command_index": command, "output": [{"stdout": told[command]}]}
        for command in (0, 1)
    ]
    got = list(events_in(answered(cleaned, Pieces(streamed(*made, *done, END), [], is_stream=True))))
    assert len(got) == len(made) + 3
    joined: dict[tuple[int, str], str] = {}
    for each in got[: len(made)]:
        for name, text in each["delta"].items():
            where = (each["command_index"], name)
            joined[where] = joined.get(where, "") + (text or "")
    restored = [each.replace(place, EMAIL) for each in told]
    assert joined == {(0, "stdout"): restored[0], (0, "stderr"): restored[1], (1, "stdout"): restored[2], (1, "stderr"): ""}  # fmt: skip
    assert [each["output"][0]["stdout"] for each in got[-3:-1]] == restored[:2]


@pytest.mark.claim("M6.redact.no_leak")
def test_what_a_command_writes_is_masked_wherever_it_is_cut():
    text = f"{'words ' * 100}{SECRET}{' words' * 100}"
    made = [
        {"type": "response.shell_call_output_content.delta", "output_index": 0, "command_index": 0, "delta": {"stdout": text[at : at + 9]}}
        for at in range(0, len(text), 9)
    ]  # fmt: skip
    (got,) = answers_of(streamed(*made, END), rules={"secret": "mask"})
    assert "".join(each["delta"]["stdout"] for each in events_in(got) if "delta" in each) == text.replace(
        SECRET, "[masked secret]"
    )


def test_what_was_asked_and_is_said_again_is_not_what_a_model_says():
    echoed = {"instructions": [{"role": "developer", "content": SECRET}], "tools": [{"type": "function", "name": "f", "description": SECRET}]}  # fmt: skip
    wire = streamed(
        {"type": "response.created", "response": response([], "in_progress", **echoed)},
        {"type": "response.completed", "response": response([], "completed", **echoed)},
    )
    whole = json.dumps(response([], "completed", **echoed)).encode()
    assert list(answers_of(wire, whole, rules={"secret": "block"})) == [wire, whole]


def test_an_event_in_several_lines_is_restored_too():
    event = {"type": "response.output_item.done", "output_index": 0, "item": items_of(SAID)[4]}
    lines = json.dumps(event, indent=1).replace("\n", "\ndata: ")
    (got,) = answers_of(f"data: {lines}\n\n".encode() + streamed(END))
    assert next(events_in(got)) == event


def test_a_stream_of_items_in_which_nothing_changes_keeps_its_bytes():
    wire = of_items(items_of("hello"))
    assert list(answers_of(wire, wire, rules={})) == [wire, wire]
    assert list(answers_of(wire, rules={"secret": "mask", "card": "block"})) == [wire]


# --- Messages --------------------------------------------------------------------------------------------------------


def blocks_of(text: str) -> Sequence[dict[str, Any]]:
    """Return blocks that start with all that they say."""
    return [
        {"type": "web_search_tool_result", "tool_use_id": "t", "content": [{"type": "web_search_result", "title": text, "url": "https://x.org", "encrypted_content": IMAGE}]},
        {"type": "mcp_tool_result", "tool_use_id": "t", "is_error": False, "content": [{"type": "text", "text": text}]},
        {"type": "bash_code_execution_tool_result", "tool_use_id": "t", "content": {"type": "bash_code_execution_result", "stdout": text, "stderr": text, "return_code": 0}},
        {"type": "kind_of_next_year", "does": text},
    ]  # fmt: skip


def of_blocks(text: str) -> bytes:
    citation = {"type": "char_location", "cited_text": text, "document_title": text, "document_index": 0}
    made: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "m", "content": [], "usage": USAGE}}]
    for index, block in enumerate(blocks_of(text)):
        made += [{"type": "content_block_start", "index": index, "content_block": block}]
        made += [{"type": "content_block_stop", "index": index}]
    made += [
        {"type": "content_block_start", "index": 9, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 9, "delta": {"type": "citations_delta", "citation": citation}},
        {"type": "content_block_delta", "index": 9, "delta": {"type": "text_delta", "text": "so"}},
        {"type": "content_block_stop", "index": 9},
        {"type": "content_block_delta", "index": 10, "delta": {"type": "compaction_delta", "content": text}},
        {"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": text}, "usage": USAGE},
        {"type": "message_stop"},
    ]
    return b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in made)


@pytest.mark.claim("M6.redact.restored")
@pytest.mark.parametrize("rules", [{}, {"card": "mask"}])
def test_what_comes_whole_in_a_stream_of_messages_is_restored(rules):
    cleaned = cleaned_of(asked_of("messages", SAID, is_stream=True), rules)
    place = placeholder_of("EMAIL", cleaned.asked.top["messages"].decode())
    got = answered(cleaned, Pieces(of_blocks(f"mail {place}"), [], is_stream=True))
    assert list(events_in(got)) == list(events_in(of_blocks(f"mail {EMAIL}")))


@pytest.mark.claim("M6.redact.no_leak")
def test_what_comes_whole_in_a_stream_of_messages_is_masked():
    cleaned = cleaned_of(asked_of("messages", SAID, is_stream=True), {"secret": "mask"})
    got = answered(cleaned, Pieces(of_blocks(f"token {SECRET} end"), [], is_stream=True))
    assert list(events_in(got)) == list(events_in(of_blocks("token [masked secret] end")))


# --- Pieces in other places ------------------------------------------------------------------------------------------


def chat_delta(delta: Mapping[str, Any], stop: str | None = None) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": stop}]}


def candidate(parts: Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, **fields}]}


def partial(path: str, text: str, *, goes_on: bool = True) -> dict[str, Any]:
    return {"functionCall": {"partialArgs": [{"jsonPath": path, "stringValue": text}], "willContinue": goes_on}}


def unnamed(*events: Mapping[str, Any] | str) -> bytes:
    return b"".join(b"data: %b\n\n" % (each if isinstance(each, str) else json.dumps(each)).encode() for each in events)


RULES: Sequence[Mapping[str, Action]] = ({}, {"secret": "mask"})


@pytest.mark.claim("M6.redact.restored")
@pytest.mark.claim("M6.redact.no_leak")
@given(size=sizes, rules=st.sampled_from(RULES))
@settings(max_examples=10)
def test_what_is_said_in_sound_is_restored_and_masked_where_it_is_written(size: int, rules: Mapping[str, Action]):
    cleaned = cleaned_of(asked_of("chat", SAID, is_stream=True), rules)
    place = placeholder_of("EMAIL", cleaned.asked.top["messages"].decode())
    said = f"{'well ' * 80}{place} and {SECRET}{' so' * 80}"
    pieces = [said[at : at + size] for at in range(0, len(said), size)]
    deltas = [chat_delta({"audio": {"data": "QUJD", "transcript": each}}) for each in pieces]
    wire = unnamed(chat_delta({"role": "assistant", "audio": {"id": "a"}}), *deltas, chat_delta({}, "stop"), "[DONE]")
    got = list(events_in(answered(cleaned, Pieces(wire, [], is_stream=True))))
    told = "".join(each["choices"][0]["delta"].get("audio", {}).get("transcript", "") for each in got)
    assert told == said.replace(place, EMAIL).replace(SECRET, "[masked secret]" if rules else SECRET)


@pytest.mark.claim("M6.redact.restored")
@pytest.mark.claim("M6.redact.no_leak")
@given(size=sizes, rules=st.sampled_from(RULES))
@settings(max_examples=10)
def test_arguments_of_gemini_in_pieces_are_restored_and_masked_each_by_its_path(size: int, rules: Mapping[str, Action]):
    cleaned = cleaned_of(asked_of("gemini", SAID, is_stream=True), rules)
    place = placeholder_of("EMAIL", cleaned.asked.top["contents"].decode())
    said = f"{place} {SECRET}{' so' * 80}"
    pieces = [said[at : at + size] for at in range(0, len(said), size)]
    made = [candidate([partial(path, each)]) for each in pieces for path in ("$.to", "$.cc")]
    begun = candidate([{"functionCall": {"name": "f", "willContinue": True}}])
    ended = candidate([{"functionCall": {}}])
    last = candidate([{"text": "ok"}], finishReason="STOP") | {"usageMetadata": {"promptTokenCount": 1}}
    got = list(events_in(answered(cleaned, Pieces(unnamed(begun, *made, ended, last), [], is_stream=True))))
    told: dict[str, str] = {}
    for each in got:
        for part in each["candidates"][0]["content"]["parts"]:
            for piece in part.get("functionCall", {}).get("partialArgs", ()):
                told[piece["jsonPath"]] = told.get(piece["jsonPath"], "") + piece["stringValue"]
    expected = said.replace(place, EMAIL).replace(SECRET, "[masked secret]" if rules else SECRET)
    assert told == {"$.to": expected, "$.cc": expected}
