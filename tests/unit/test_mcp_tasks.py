"""Runs as tasks of MCP clients that declare the extension."""

from typing import Any

import anyio
import pytest

from kit import opened
from mcp_kit import able, earlier, nothing, present, put
from overwinter.config import Agent, Config, Worker
from overwinter.events import Status
from overwinter.faces.mcp import McpDoor, tasks

pytestmark = pytest.mark.anyio
ANA = "ana@example.com"
KNOWN: dict[str, Any] = {"extensions": {tasks.EXTENSION: {}}}
TASKS, FORMS = able(**KNOWN), able(**KNOWN, elicitation={})
SLEEPS = "import asyncio\nawait asyncio.sleep(86_400)"
ASKS = f"await tools.ask({ANA!r}, 'Go?')"


async def told(
    app: Any,
    method: str,
    meta: Any = TASKS,
    status: int = 200,
    *,
    agent: str = "default",
    door: Any = None,
    **params: Any,
) -> Any:
    body, headers = present(method, _meta=meta, **params)
    if "taskId" in params:
        headers["mcp-name"] = params["taskId"]
    found, answer = await put(app, body, headers={**headers, "x-overwinter-agent": agent}, door=door)
    assert found == status, answer
    return answer.get("result") or answer["error"]


async def execute(app: Any, code: str, meta: Any = TASKS) -> Any:
    return await told(app, "tools/call", meta, name="execute", arguments={"code": code})


async def settled(app: Any, task: str, meta: Any = TASKS) -> Any:
    """Ask for a task until it has ended."""
    await app.result(task)
    return await told(app, "tasks/get", meta, taskId=task)


@pytest.mark.claim("F1.tasks")
async def test_a_program_that_goes_on_is_a_task_whose_id_is_its_run_and_that_can_be_cancelled(project):
    async with opened(project) as app:
        made = await execute(app, SLEEPS)
        assert (made["resultType"], made["status"], made["ttlMs"]) == ("task", "working", None)
        assert not {"result", "requestState", "inputRequests", "content"} & made.keys()
        assert (await app.run(made["taskId"])).status is Status.LIVE
        got = await told(app, "tasks/get", taskId=made["taskId"])
        assert (got["resultType"], got["taskId"], got["status"]) == ("complete", made["taskId"], "working")
        for _ in range(2):
            ack = await told(app, "tasks/cancel", taskId=made["taskId"])
            assert {*ack} == {"resultType", "_meta"}
        assert (await settled(app, made["taskId"]))["status"] == "cancelled"


@pytest.mark.claim("F1.tasks")
async def test_a_program_that_ends_at_once_is_answered_at_once(project):
    async with opened(project) as app:
        answer = await execute(app, "await shop.double(number=4)")
        assert (answer["resultType"], answer["structuredContent"]["value"]) == ("complete", 8)


@pytest.mark.claim("F1.tasks")
@pytest.mark.claim("F1.asked")
@pytest.mark.parametrize("action", ["accept", "decline"])
async def test_a_task_asks_the_person_at_its_client_once(project, action):
    async with opened(project) as app:
        made = await execute(app, ASKS, FORMS)
        assert (made["resultType"], made["status"]) == ("task", "input_required")
        got = await told(app, "tasks/get", FORMS, taskId=made["taskId"])
        (key,) = got["inputRequests"]
        assert "inputRequests" not in await told(app, "tasks/get", taskId=made["taskId"]), "it shows no forms"
        reply = {"action": action, "content": {"answer": "go"}} if action == "accept" else {"action": action}
        door = McpDoor(nothing, app, is_remote=False)
        ack = await told(
            app, "tasks/update", FORMS, door=door, taskId=made["taskId"], inputResponses={key: reply, "other": 1}
        )
        assert {*ack} == {"resultType", "_meta"}
        if action == "decline":
            got = await told(app, "tasks/get", FORMS, door=door, taskId=made["taskId"])
            assert (got["status"], "inputRequests" in got) == ("working", False)
            assert ANA in got["statusMessage"]
            await app.answer(f"{made['taskId']}:0", "go", by=ANA)
        got = await settled(app, made["taskId"])
        assert (got["status"], got["result"]["structuredContent"]["value"]) == ("completed", "go")


async def test_a_program_that_fails_is_a_completed_task_with_an_error(project):
    async with opened(project) as app:
        made = await execute(app, f"{ASKS}\n1 / 0")
        await app.answer(f"{made['taskId']}:0", "go", by=ANA)
        got = await settled(app, made["taskId"])
        assert (got["status"], got["result"]["isError"]) == ("completed", True)


@pytest.mark.claim("F1.tasks")
@pytest.mark.parametrize("method", tasks.METHODS)
async def test_who_does_not_declare_tasks_gets_none(project, method):
    async with opened(project) as app:
        error = await told(app, method, able(), 400, taskId="X")
        assert (error["code"], error["data"]["requiredCapabilities"]) == (-32021, KNOWN)
        _, answer = await put(app, earlier(method, taskId="X"))
        assert answer["error"]["code"] == -32601
        assert (await told(app, "tasks/list", status=404))["code"] == -32601


@pytest.mark.claim("F1.tasks")
@pytest.mark.parametrize("method", tasks.METHODS)
async def test_a_task_of_another_agent_is_none(project, method):
    config = Config(agents={"default": Agent(tools=("*",)), "other": Agent()}, worker=Worker(interpreters=2))
    async with opened(project, config=config) as app:
        made = await execute(app, SLEEPS)
        for task, agent in ((made["taskId"], "other"), ("nothing", "default"), (made["taskId"][-6:], "default")):
            error = await told(app, method, status=400, agent=agent, taskId=task)
            assert error["code"] == -32602
        assert (await app.run(made["taskId"])).status is Status.LIVE


@pytest.mark.claim("F1.left")
async def test_two_clients_wait_for_one_task_and_one_that_left_comes_back(project):
    async with opened(project) as app:
        made = await execute(app, ASKS)
        ended: list[Any] = []

        async def wait() -> None:
            body, headers = present("tools/call", name="wait", arguments={"run": made["taskId"]})
            ended.append((await put(app, body, headers=headers))[1]["result"]["structuredContent"])

        await wait()
        assert ended.pop()["status"] == "live"
        async with anyio.create_task_group() as group:
            await app.answer(f"{made['taskId']}:0", "go", by=ANA)
            group.start_soon(wait)
            group.start_soon(wait)
        assert [each["value"] for each in ended] == ["go", "go"]
