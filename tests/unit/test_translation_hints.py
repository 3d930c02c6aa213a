"""Claude Code before a model of chat completions: what changes no answer is left out by name, and everything else refused by name."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doors import door_of
from models_kit import config_of
from overwinter.adapters.dialects import dialects
from overwinter.adapters.translations.hints import BETAS
from overwinter.adapters.translations.messages_to_chat import MessagesToChat
from overwinter.config import Config
from overwinter.gateway.dialect import Asked, Means
from overwinter.gateway.refusal import ModelRefused
from provider import Mock, Rule

pytestmark = pytest.mark.anyio
MESSAGES, TURNED = dialects()["messages"], MessagesToChat()
CACHED = {"cache_control": {"type": "ephemeral"}}
LONG = {"cache_control": {"type": "ephemeral", "ttl": "1h", "scope": "global"}}
FLAGS = (
    "claude-code-20250219", "interleaved-thinking-2025-05-14", "thinking-token-count-2026-05-13", "context-management-2025-06-27",
    "prompt-caching-scope-2026-01-05", "advisor-tool-2026-03-01", "advanced-tool-use-2025-11-20", "effort-2025-11-24",
    "extended-cache-ttl-2025-04-11",
)  # fmt: skip
HEADERS = {
    "anthropic-version": "2023-06-01", "anthropic-beta": ",".join(FLAGS), "anthropic-dangerous-direct-browser-access": "true",
    "x-app": "cli", "user-agent": "claude-cli/2.1.329 (external, cli)", "x-claude-code-session-id": "0c0f4a2e",
    "content-type": "application/json",
}  # fmt: skip
PARAMETERS = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"command": {"type": "string"}},
}
CODE: dict[str, Any] = {
    "model": "gpt",
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>\nAs you answer, be brief.\n</system-reminder>"},
            {"type": "text", "text": "list the files", **CACHED},
        ]},
        {"role": "assistant", "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "a.py", **CACHED}], "is_error": False, **CACHED},
        ]},
    ],
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.329"},
        {"type": "text", "text": "You are Claude Code.", **LONG},
        {"type": "text", "text": "Working directory: /src", **CACHED},
    ],
    "tools": [{"name": "Bash", "description": "Runs a command", "input_schema": PARAMETERS, "eager_input_streaming": True, **CACHED}],
    "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"0c0f4a2e"}'},
    "max_tokens": 32_000,
    "thinking": {"type": "adaptive", "display": "omitted"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "stream": True,
}  # fmt: skip
"""The shape of a request of Claude Code 2.1, put together from what is known of its fields and flags; not a recording."""
LEFT_OUT = (
    "?beta=true", *(f"anthropic-beta: {each}" for each in FLAGS), "anthropic-dangerous-direct-browser-access", "metadata", "thinking",
    "output_config", "context_management", "system[].cache_control", "tools[].cache_control", "tools[].eager_input_streaming",
    "messages[].content[].cache_control", "messages[].content[].content[].cache_control",
)  # fmt: skip


def read(body: Mapping[str, Any], headers: Mapping[str, str] = HEADERS) -> Asked:
    return MESSAGES.read("POST", "/v1/messages?beta=true", headers, json.dumps(body).encode())


def chat_only(url: str) -> Config:
    config = config_of(url)
    providers = {"mock": replace(config.providers["mock"], dialects=("chat",))}
    return replace(config, providers=providers, models={"cheap": config.models["cheap"], "gpt": config.models["cheap"]})


@pytest.mark.claim("T1.hints")
async def test_claude_code_asks_a_model_of_chat_completions_and_the_log_says_what_was_left_out(
    project: Path, provider: Mock, caplog: pytest.LogCaptureFixture
):
    provider.script(Rule(tool="Bash", arguments='{"command": "cat a.py"}'))
    caplog.set_level(logging.INFO, "overwinter.models")
    async with door_of(project, chat_only(provider.url)) as door:
        status, _, body = await door.post("/v1/messages?beta=true", json.dumps(CODE).encode(), headers=HEADERS.items())
    assert status == 200
    assert b"event: message_stop" in body
    assert b'"name":"Bash"' in body
    (sent,) = provider.provider.bodies
    assert not [
        each for each in (b"cache_control", b"thinking", b"metadata", b"user_id", b"edits", b"effort") if each in sent
    ]
    (charge,) = provider.calls
    assert not [each for each in charge.headers if each.startswith("anthropic-")]
    (told,) = [vars(each)["fields"]["left_out"] for each in caplog.records if each.name == "overwinter.models"]
    assert sorted(told.split(", ")) == sorted(LEFT_OUT)


async def test_a_provider_of_messages_gets_every_hint(project: Path, provider: Mock, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "overwinter.models")
    async with door_of(project, config_of(provider.url)) as door:
        raw = json.dumps(CODE | {"model": "cheap"}).encode()
        status, _, _ = await door.post("/v1/messages?beta=true", raw, headers=HEADERS.items())
    assert status == 200
    (sent,), (charge,) = provider.provider.bodies, provider.calls
    assert sent.count(b"cache_control") == raw.count(b"cache_control")
    assert charge.headers["anthropic-beta"] == HEADERS["anthropic-beta"]
    (record,) = [each for each in caplog.records if each.name == "overwinter.models"]
    assert "left_out" not in vars(record)["fields"]


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"thinking": {"type": "enabled", "budget_tokens": 1_024}}, "thinking"),
    ({"thinking": {"type": "adaptive", "budget_tokens": 1_024}}, "thinking"),
    ({"output_config": {"effort": "low"}}, "output_config"),
    ({"output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {}}}}, "output_config"),
    ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management"),
    ({"metadata": {"user_id": "u", "team": "t"}}, "metadata"),
    ({"tools": [CODE["tools"][0] | {"defer_loading": True}]}, r"tools\[0\].defer_loading"),
    ({"speed": "fast"}, "speed"),
)


@pytest.mark.parametrize(("more", "place"), REFUSED)
def test_what_asks_for_another_answer_is_no_hint(more: dict[str, Any], place: str):
    with pytest.raises(ModelRefused, match=f"^{place} has no counterpart"):
        TURNED.forward(read(CODE | more), Means(model="gpt"))


@pytest.mark.parametrize(
    "flag", ["unheard-of-2026-01-01", "claude-code", "claude-code-20250219x", "mcp-client-2025-11-20"]
)
def test_a_beta_that_is_not_on_the_list_is_refused(flag: str):
    with pytest.raises(ModelRefused, match=r"^the header anthropic-beta"):
        TURNED.forward(read(CODE, HEADERS | {"anthropic-beta": f"{FLAGS[0]}, {flag}"}), Means(model="gpt"))


@pytest.mark.claim("T1.hints")
@given(
    st.sets(st.sampled_from(sorted(BETAS))),
    st.booleans(),
    st.sets(st.sampled_from(["metadata", "thinking", "output_config", "context_management"])),
)
def test_a_hint_changes_nothing_that_the_provider_gets(flags: set[str], is_marked: bool, fields: set[str]):  # noqa: FBT001 - drawn
    bare = {each: value for each, value in CODE.items() if each not in (LEFT_OUT)}
    unmarked = json.loads(json.dumps(bare).replace(json.dumps(CACHED["cache_control"]), "null"))
    told = HEADERS | {"anthropic-beta": ",".join(f"{each}-2026-01-01" for each in sorted(flags))}
    hinted = (bare if is_marked else unmarked) | {each: CODE[each] for each in fields}
    expected = TURNED.forward(read(unmarked, {"anthropic-version": "2023-06-01"}), Means(model="gpt"))
    assert TURNED.forward(read(hinted, told), Means(model="gpt")).body == expected.body
    assert len(TURNED.left_out(read(hinted, told))) >= len(flags) + len(fields) + 1


def test_the_docs_name_every_beta_that_is_left_out():
    page = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text(encoding="utf-8")
    (row,) = [each for each in page.splitlines() if each.startswith("| `anthropic-beta`: ")]
    assert row.removeprefix("| `anthropic-beta`: ").partition(", each of any date")[0].split(", ") == sorted(BETAS)
