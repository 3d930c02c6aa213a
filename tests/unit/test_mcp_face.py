"""What the MCP face says to requests as they should be, and to others."""

import json
from typing import Any

import anyio
import pytest
from bench.tokens import tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import opened
from mcp_kit import META, earlier, nothing, present, put
from overwinter.brief import brief
from overwinter.events import Status
from overwinter.faces.mcp import McpDoor, protocol
from overwinter.faces.mcp.door import INTRODUCTION
from overwinter.faces.mcp.protocol import EARLIER, PRESENT
from overwinter.faces.mcp.verbs import LISTED
from overwinter.store import Page
from overwinter.testing import ManualClock, idle

pytestmark = pytest.mark.anyio


async def test_a_client_of_today_finds_out_what_is_here(project):
    async with opened(project) as app:
        body, headers = present("server/discover")
        status, answer = await put(app, body, headers=headers)
        result = answer["result"]
        assert (status, answer["id"], result["resultType"]) == (200, 1, "complete")
        assert result["supportedVersions"] == [PRESENT, *EARLIER]
        assert (result["cacheScope"], result["ttlMs"] > 0) == ("private", True)
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "overwinter"
        body, headers = present("tools/list")
        first, again = [await put(app, body, headers=headers) for _ in range(2)]
        assert first == again


@pytest.mark.parametrize("version", [*EARLIER, "1999-01-01"])
async def test_a_client_of_before_shakes_hands_and_gets_a_version_it_knows_or_the_latest(project, version):
    async with opened(project) as app:
        status, answer = await put(app, earlier("initialize", protocolVersion=version, capabilities={}))
        assert status == 200
        assert answer["result"]["protocolVersion"] == (version if version in EARLIER else EARLIER[0])
        assert "resultType" not in answer["result"]
        assert (await put(app, {"jsonrpc": "2.0", "method": "notifications/initialized"})) == (202, None)
        assert (await put(app, earlier("ping")))[1]["result"] == {}


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"mcp-method": "tools/call"}, 400, -32020),
        ({"mcp-method": None}, 400, -32020),
        ({"mcp-protocol-version": "2025-11-25"}, 400, -32020),
        ({"mcp-protocol-version": None}, 400, -32020),
    ],
)
async def test_headers_that_do_not_say_what_the_body_says_are_refused(project, change, status, code):
    async with opened(project) as app:
        body, headers = present("tools/list")
        headers = {key: value for key, value in {**headers, **change}.items() if value is not None}
        found, answer = await put(app, body, headers=headers)
        assert (found, answer["error"]["code"], answer["id"]) == (status, code, 1)


async def test_a_version_that_nobody_speaks_is_refused_with_those_that_are(project):
    async with opened(project) as app:
        body, headers = present("tools/list")
        body["params"]["_meta"] = {**META, "io.modelcontextprotocol/protocolVersion": "2030-01-01"}
        status, answer = await put(app, body, headers=headers)
        assert (status, answer["error"]["code"]) == (400, -32020), "header and body disagree, whatever they say"
        status, answer = await put(app, body, headers={**headers, "mcp-protocol-version": "2030-01-01"})
        assert (status, answer["error"]["code"]) == (400, -32022)
        assert answer["error"]["data"] == {"supported": [PRESENT, *EARLIER], "requested": "2030-01-01"}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", -32700), (b"[]", -32600), (b'"x"', -32600), (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', -32600), (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
        (b"[" * 100_000, -32700), (b"\xff\xfe", -32700),
        (b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}', -32700), (b'{"jsonrpc":"2.0","id":"\xed\xa0\x80","method":"ping"}', -32700),
        ('{"jsonrpc":"2.0","id":1,"method":"ping"}'.encode("utf-16"), -32700),
    ],
)  # fmt: skip
async def test_what_is_no_message_is_told_so(project, raw, code):
    async with opened(project) as app:
        status, answer = await put(app, raw)
        assert (status, answer["error"]["code"]) == (400, code)


async def test_a_method_or_tool_that_is_none_is_said_to_be_none(project):
    async with opened(project) as app:
        body, headers = present("prompts/list")
        assert (await put(app, body, headers=headers))[0] == 404
        status, answer = await put(app, earlier("prompts/list"))
        assert (status, answer["error"]["code"]) == (200, -32601)
        for arguments in ({"code": 1}, {}, {"code": "1", "more": "x"}):
            _, answer = await put(app, earlier("tools/call", name="execute", arguments=arguments))
            assert answer["result"]["isError"], "a model can mend it, and gets to see it"
        _, answer = await put(app, earlier("tools/call", name="nothing", arguments={}))
        assert answer["error"]["code"] == -32602
        assert (await put(app, b"", method="GET"))[0] == 405
        assert (await put(app, b"{}", headers={"content-type": "text/plain"}))[0] == 415
        assert not await app.runs(Page())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("describe", {"names": [""] * 10_000}), ("search", {"query": ""}), ("search", {"query": "x" * 1_000_000}),
        ("wait", {"run": "x" * 1_000_000}), ("wait", {"run": "\x00" * 26}), ("execute", {"code": "\x00"}), ("execute", {"code": "(" * 5_000}),
    ],
)  # fmt: skip
async def test_odd_arguments_are_answered_in_a_few_words(project, name, arguments):
    async with opened(project) as app:
        status, answer = await put(app, earlier("tools/call", name=name, arguments=arguments))
        assert (status, "result" in answer) == (200, True)
        assert len(json.dumps(answer)) < 2_000


REAL = {
    "cloudflare": 1533,
    "twilio": 1447,
    "github": 1223,
    "kubernetes": 845,
    "jira": 600,
    "stripe": 468,
    "slack": 210,
    "gmail": 90,
}
ODD = {f"{'xq_zk_wv_' * 3}{number}": 98_765 + number for number in range(40)}


@pytest.mark.claim("P4.bounded")
@pytest.mark.parametrize(("services", "said_max", "sent_max"), [(REAL, 550, 700), (ODD, 570, 700)], ids=["real", "odd"])
def test_what_a_client_puts_before_every_conversation_is_bounded(services, said_max, sent_max):
    """Instructions and a sentence for each tool, and as a client sends them to its provider, with JSON schemas."""
    sent = [
        {"name": each["name"], "description": each["description"], "input_schema": each["inputSchema"]}
        for each in LISTED
    ]
    instructions = INTRODUCTION + brief(services)
    plain = [
        f"{each['name']}({', '.join(each['inputSchema']['properties'])}): {each['description']}" for each in LISTED
    ]
    whole, schemas, lines = tokens([instructions, json.dumps(sent, separators=(",", ":")), "\n".join(plain)])
    assert whole + schemas <= sent_max
    assert whole + lines <= said_max
    assert all(each["_meta"]["anthropic/alwaysLoad"] for each in LISTED)
    for word in ("search", "describe", "execute", "query", "wait", "Python", "checked", "days"):
        assert word in instructions[:512]


SLEEPS = {"code": "import asyncio\nawait asyncio.sleep(15)"}


@pytest.mark.claim("F1.left")
@pytest.mark.parametrize("generation", ["present", "earlier"])
async def test_who_leaves_before_it_knows_the_run_ends_it_where_the_protocol_says_so(project, generation):
    body, headers = present("tools/call", name="execute", arguments=SLEEPS)
    if generation == "earlier":
        body, headers = earlier("tools/call", name="execute", arguments=SLEEPS), {}
    async with opened(project) as app, anyio.create_task_group() as group:
        left = anyio.Event()

        async def ask() -> None:
            await put(app, body, headers=headers, left=left)

        group.start_soon(ask)
        while not await app.runs(Page()):  # noqa: ASYNC110 - a run that is not begun has no journal to watch
            await anyio.sleep(0.01)
        await idle(app)
        left.set()
        if generation == "present":
            await app.result((await app.runs(Page()))[0].run_id)
        await idle(app)
        (run,) = await app.runs(Page())
        assert run.status is (Status.CANCELLED if generation == "present" else Status.LIVE)
        group.cancel_scope.cancel()


@pytest.mark.claim("F1.left")
async def test_a_question_is_shown_and_the_run_waited_for_from_another_connection(project):
    async with opened(project) as app:
        code = "await tools.ask('ana@example.com', 'Go?', options=['yes', 'no'])"
        _, answer = await put(app, earlier("tools/call", name="execute", arguments={"code": code}))
        told = answer["result"]["structuredContent"]
        assert (told["status"], told["asks"][0]["person"], told["asks"][0]["options"]) == (
            "live",
            "ana@example.com",
            ["yes", "no"],
        )
        await app.answer(told["asks"][0]["question"], "yes", by="ana@example.com")
        _, answer = await put(app, earlier("tools/call", name="wait", arguments={"run": told["run"]}))
        assert answer["result"]["structuredContent"]["value"] == "yes"
        other = {"x-overwinter-agent": "nobody"}
        _, answer = await put(app, earlier("tools/list"), headers=other)
        assert "nobody" in answer["error"]["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
)
METHODS = st.sampled_from(
    ["initialize", "ping", "tools/list", "tools/call", "server/discover", "notifications/x", "x", ""]
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_comes_is_a_request_or_a_fault_with_a_code_of_the_protocol(data):
    message = {
        "jsonrpc": data.draw(st.sampled_from(["2.0", "2.0", "1.0", 2])), "id": data.draw(JSON), "method": data.draw(METHODS | JSON),
        "params": data.draw(JSON | st.fixed_dictionaries({"name": JSON, "arguments": JSON, "_meta": JSON})),
    }  # fmt: skip
    headers = data.draw(
        st.dictionaries(st.sampled_from(["mcp-protocol-version", "mcp-method"]), st.sampled_from([PRESENT, "x"]))
    )
    asked: Any = None
    fault: Any = None
    try:
        asked = protocol.read(json.dumps(message).encode(), headers)
    except protocol.Fault as error:
        fault = error
    if asked is not None:
        assert asked.method == message["method"]
        assert asked.version in (PRESENT, *EARLIER)
    else:
        assert fault.code in (-32700, -32600, -32602, -32020, -32022)
        assert json.dumps(protocol.fault(fault))


STREAM = {"accept": "application/json, text/event-stream"}


@pytest.mark.claim("F1.progress")
@pytest.mark.parametrize("generation", ["present", "earlier"])
@pytest.mark.parametrize("token", ["t", 7])
async def test_who_waits_and_wants_to_know_is_told_how_it_goes_before_the_answer(project, generation, token):
    params: dict[str, Any] = {"name": "execute", "arguments": {"code": "import asyncio\nawait asyncio.sleep(0.5)\n8"}}
    body, headers = present("tools/call", **params, _meta={**META, "progressToken": token})
    if generation == "earlier":
        body, headers = earlier("tools/call", **params, _meta={"progressToken": token}), {}
    async with opened(project) as app:
        door = McpDoor(nothing, app, is_remote=False, progress_s=0.05)
        status, (*words, answer) = await put(app, body, headers={**headers, **STREAM}, door=door)
        assert (status, answer["id"], answer["result"]["structuredContent"]["value"]) == (200, body["id"], 8)
        assert words
        assert {each["method"] for each in words} == {"notifications/progress"}
        assert {each["params"]["progressToken"] for each in words} == {token}
        seconds = [each["params"]["progress"] for each in words]
        assert seconds == sorted(set(seconds))
        assert any("sleeps" in each["params"]["message"] for each in words), words


@pytest.mark.claim("F1.progress")
@pytest.mark.parametrize(("token", "headers"), [(True, STREAM), (None, STREAM), ([], STREAM), ("t", {})])
async def test_who_cannot_be_told_gets_one_object(project, token, headers):
    async with opened(project) as app:
        door = McpDoor(nothing, app, is_remote=False, progress_s=0.01)
        arguments = {"code": "import asyncio\nawait asyncio.sleep(0.2)\n8"}
        body = earlier("tools/call", name="execute", arguments=arguments, _meta={"progressToken": token})
        _, answer = await put(app, body, headers=headers, door=door)
        assert answer["result"]["structuredContent"]["value"] == 8


@pytest.mark.claim("F1.left")
async def test_a_thousand_open_requests_are_answered_when_their_runs_end_and_hold_no_interpreter(project):
    clock, door_waits = ManualClock(), 9
    sleeps = "import asyncio\nawait asyncio.sleep(15)\n{number}"
    told: dict[str, list[Any]] = {}
    async with opened(project, clock=clock) as app, anyio.create_task_group() as group:
        door = McpDoor(nothing, app, is_remote=False)

        async def ask(name: str, **arguments: str) -> None:
            _, answer = await put(app, earlier("tools/call", name=name, arguments=arguments), door=door)
            body = answer["result"]["structuredContent"]
            told.setdefault(body["run"], []).append(body.get("value"))

        for number in range(100):
            group.start_soon(lambda number=number: ask("execute", code=sleeps.format(number=number)))
        while len(await app.runs(Page(limit=1_000))) < 100:  # noqa: ASYNC110 - runs that are not begun have no journal to watch
            await anyio.sleep(0.01)
        runs = [each.run_id for each in await app.runs(Page(limit=1_000))]
        for run_id in runs * door_waits:
            group.start_soon(lambda run_id=run_id: ask("wait", run=run_id))
        await idle(app)
        await anyio.wait_all_tasks_blocked()
        assert (told, app.pulse().busy) == ({}, 0)
        assert (await put(app, earlier("ping"), door=door))[1]["result"] == {}, "others are answered meanwhile"
        clock.advance(15)
    assert {len(values) for values in told.values()} == {1 + door_waits}
    assert sorted(values[0] for values in told.values()) == list(range(100))
    assert all(len(set(values)) == 1 for values in told.values())
