import json
import logging
from collections.abc import Mapping

import pytest

from overwinter.adapters.detectors import WordList, detectors
from overwinter.gateway.placeholders import Vault
from overwinter.gateway.redaction import Redactor, Rules, Search, restored
from overwinter.gateway.refusal import ModelRefused

EMAIL = "ada.quill@corp-mail7.org"
CARD = "4111 1111 1111 1111"
SECRET = "ghp_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX"
WORD = "Blue Heron"
VALUES = (EMAIL, CARD, SECRET, WORD)
ALL = f"to {EMAIL}, card {CARD}; token {SECRET} for {WORD}."
ARGUMENTS = json.dumps({"to": EMAIL, "body": json.dumps({"card": CARD, "note": f'"{SECRET}"'}), "id": WORD})
SEARCH = Search(detectors([WordList(name="projects", words=(WORD,))]), lambda: 0.0)
SCHEMA = {
    "type": "object",
    "properties": {"to": {"type": "string", "description": ALL, "enum": [EMAIL], "default": WORD}},
}
SIGNATURE = "EqQBCkgIARABGAIiQL" + "ab1" * 60
OPAQUE = frozenset({
    "id", "type", "role", "call_id", "tool_call_id", "tool_use_id", "signature", "thoughtSignature", "encrypted_content",
    "data", "mimeType", "media_type", "model",
})  # fmt: skip

REQUESTS: Mapping[str, Mapping[str, object]] = {
    "chat": {
        "messages": [
            {"role": "system", "content": ALL},
            {"role": "developer", "content": [{"type": "text", "text": ALL}]},
            {"role": "user", "content": ALL, "name": WORD},
            {"role": "user", "content": [{"type": "text", "text": ALL}, {"type": "image_url", "image_url": {"url": f"https://x.org/?m={EMAIL}"}}]},
            {"role": "assistant", "content": ALL, "refusal": ALL, "reasoning_content": ALL, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "send", "arguments": ARGUMENTS}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": ALL},
            {"role": "tool", "tool_call_id": "call_1", "content": ARGUMENTS},
        ],
        "tools": [{"type": "function", "function": {"name": "send", "description": ALL, "parameters": SCHEMA}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "description": ALL, "schema": SCHEMA}},
        "prediction": {"type": "content", "content": ALL},
    },
    "responses": {
        "instructions": ALL,
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ALL}]},
            {"role": "user", "content": ALL},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": ALL}], "encrypted_content": SIGNATURE},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "send", "arguments": ARGUMENTS},
            {"type": "function_call_output", "call_id": "call_1", "output": ALL},
            {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": ALL}]},
            {"type": "custom_tool_call", "call_id": "c", "name": "sh", "input": f"mail {ALL}"},
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["echo", ALL], "env": {"WHO": EMAIL, EMAIL: "1"}}},
            {"type": "mcp_call", "id": "m", "name": "send", "arguments": ARGUMENTS, "output": ALL, "error": ALL},
        ],
        "tools": [{"type": "function", "name": "send", "description": ALL, "parameters": SCHEMA}],
        "prompt": {"id": "pmpt_1", "variables": {"who": EMAIL, "what": {"type": "input_text", "text": ALL}}},
        "text": {"format": {"type": "json_schema", "name": "x", "description": ALL, "schema": SCHEMA}},
    },
    "messages": {
        "system": [{"type": "text", "text": ALL, "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": ALL},
            {"role": "user", "content": [{"type": "document", "title": ALL, "context": ALL, "source": {"type": "text", "media_type": "text/plain", "data": "opaque here"}}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": SIGNATURE}, {"type": "text", "text": ALL}, {"type": "tool_use", "id": "toolu_1", "name": "send", "input": {"to": EMAIL, "id": WORD, "data": {"card": CARD, "type": SECRET}}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": ALL}]}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": ARGUMENTS, "is_error": True}]},
        ],
        "tools": [{"name": "send", "description": ALL, "input_schema": SCHEMA}],
        "stop_sequences": [WORD],
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": ALL}]},
        "contents": [
            {"role": "user", "parts": [{"text": ALL}, {"inlineData": {"mimeType": "image/png", "data": SIGNATURE}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "send", "args": {"to": EMAIL, "data": CARD, "n": 4111111111111111}}, "thoughtSignature": SIGNATURE}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "send", "response": {"result": ALL, "id": EMAIL, "rows": [[WORD]]}}}]},
            {"role": "model", "parts": [{"executableCode": {"language": "PYTHON", "code": ALL}}, {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": ALL}}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "send", "description": ALL, "parameters": SCHEMA}]}],
    },
    "embeddings": {"input": [ALL, ARGUMENTS, EMAIL]},
}  # fmt: skip


def body(dialect: str) -> Mapping[str, bytes]:
    return {name: json.dumps(value).encode() for name, value in REQUESTS[dialect].items()}


def redacted(dialect: str, rules: Rules, vault: Vault) -> bytes:
    top = body(dialect)
    changed = Redactor(SEARCH, rules, vault).redact(top, top.keys(), OPAQUE)
    return b"\n".join({**top, **changed}.values())


@pytest.mark.claim("M6.redact.no_leak")
@pytest.mark.parametrize("dialect", REQUESTS)
def test_no_text_of_a_request_brings_a_value_to_the_provider(
    dialect: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    there = redacted(dialect, Rules(), Vault(b"k"))
    said = there.decode() + caplog.text + "".join(capfd.readouterr())
    for value in (*VALUES, CARD.replace(" ", "")):
        assert value not in said
    assert all(json.loads(line) is not None for line in there.split(b"\n"))
    assert there.count(SIGNATURE.encode()) == json.dumps(REQUESTS[dialect]).count(SIGNATURE)


@pytest.mark.claim("M6.redact.restored")
@pytest.mark.parametrize("dialect", REQUESTS)
def test_what_was_replaced_comes_back_and_a_secret_does_not(dialect: str) -> None:
    vault = Vault(b"k")
    back = [restored(line, vault) for line in redacted(dialect, Rules(), vault).decode().split("\n")]
    assert SECRET not in "".join(back)
    expected = [json.dumps(value).replace(SECRET, "[masked secret]") for value in REQUESTS[dialect].values()]
    assert back == [each.replace("4111111111111111", '"4111111111111111"') for each in expected]


@pytest.mark.parametrize("kind", ["secret", "email", "card", "word:projects", "word"])
@pytest.mark.parametrize("dialect", REQUESTS)
def test_a_blocked_class_is_refused_by_name_and_place_alone(dialect: str, kind: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        redacted(dialect, Rules(request={"secret": "mask", kind: "block"}), Vault(b"k"))
    message = str(refused.value)
    assert f"value of class '{kind}" in message
    assert message.split(" ", maxsplit=1)[0].split("[", maxsplit=1)[0].split(".", maxsplit=1)[0] in REQUESTS[dialect]
    assert not any(value in message or value in repr(refused.value.refusal) for value in VALUES)


@pytest.mark.claim("M6.redact.prefix")
@pytest.mark.parametrize("dialect", ["chat", "responses", "messages", "gemini"])
def test_twenty_turns_each_begin_with_the_bytes_of_the_last(dialect: str) -> None:
    name = {"chat": "messages", "responses": "input", "messages": "messages", "gemini": "contents"}[dialect]
    items = REQUESTS[dialect][name]
    assert isinstance(items, list)
    vault, before = Vault(b"k"), b""
    for turn in range(1, 21):
        raw = json.dumps([items[at % len(items)] for at in range(turn)]).encode()
        now = Redactor(SEARCH, Rules(), vault).redact({name: raw}, {name}, OPAQUE).get(name, raw)
        assert now.startswith(before)
        before = now.removesuffix(b"]")


def test_a_number_is_found_however_it_is_written():
    raw = b"[4111111111111111, 4111111111111111.0, 4.111111111111111e15, 4.1111111111111110E+15, 41111111111111110e-1]"
    vault = Vault(b"k")
    changed = Redactor(SEARCH, Rules(), vault).redact({"input": raw}, ["input"], OPAQUE)
    (placeholder,) = set(json.loads(changed["input"]))
    assert vault.restored(placeholder) == "4111111111111111"
    others = b"[4111111111111111.5, 0.4111111111111111, 4111111111111112.0, 1.5e300]"
    assert Redactor(SEARCH, Rules(), vault).redact({"input": others}, ["input"], OPAQUE) == {}
