"""Agents of Pydantic AI on a home: programs, tools as a service, approvals in the inbox, models through the gateway."""

import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults
from pydantic_ai.capabilities import HandleDeferredToolCalls
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from overwinter.app import App
from overwinter.config import Agent as Identity
from overwinter.config import Config, Service, Worker
from overwinter.errors import CheckFailed, ConfigInvalid
from overwinter.events import Status
from overwinter.pydantic_ai import Approvals, Durable, Home, code
from overwinter.store import Page
from overwinter.testing import OWNER, open_test_app
from sdks import quiet

pytestmark = quiet
TOOLS = '''
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.exceptions import ApprovalRequired, ToolFailed

from overwinter.pydantic_ai import Offer

LOG = Path(__file__).with_name("log.txt")

class Order(BaseModel):
    id: int
    euros: float

@dataclass
class Desk:
    name: str

agent = Agent("test", deps_type=Desk, name="desk")

@agent.tool(metadata={"effect": "read"})
def find_orders(context: RunContext[Desk], customer: str, *, limit: int = 2) -> list[Order]:
    """Find a customer's orders."""
    return [Order(id=n, euros=10.5 * n) for n in range(1, limit + 1)]

@agent.tool_plain(requires_approval=True)
def refund(order: Order, reason: str = "none") -> str:
    """Pay an order back."""
    with LOG.open("a") as log:
        log.write(f"{order.id} {reason}\\n")
    return f"paid {order.euros:.2f} back"

@agent.tool
def who(context: RunContext[Desk]) -> str:
    return f"{context.deps.name} {context.tool_call_id}"

@agent.tool_plain
def fail(how: str) -> str:
    if how == "retry":
        raise ModelRetry("another one, please")
    if how == "ask":
        raise ApprovalRequired
    raise ToolFailed("no such thing")

desk = Offer(agent, deps=lambda: Desk("ada"))
nothing = 5
'''


@pytest.fixture
def project(tmp_path: Path):
    (tmp_path / "desk_tools.py").write_text(TOOLS)
    yield tmp_path
    sys.modules.pop("desk_tools", None)
    sys.path.remove(str(tmp_path))


def config(**services: str) -> Config:
    declared = {name: Service(python=python) for name, python in services.items()}
    return Config(
        agents={"default": Identity(owner=OWNER, tools=("*",)), "reader": Identity(owner=OWNER, reads=("*",))},
        services=declared,
        worker=Worker(interpreters=1),
    )


HERE = config(desk="desk_tools:desk", approvals="overwinter.pydantic_ai:approvals")


@pytest.fixture
async def app(project: Path) -> AsyncGenerator[App]:
    async with open_test_app(project / "home", {}, directory=project, config=HERE) as opened:
        yield opened


def scripted(*steps: ToolCallPart | str) -> FunctionModel:
    """Return a model that takes these steps, one a request."""
    left = list(steps)

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del messages, info
        step = left.pop(0)
        return ModelResponse(parts=[TextPart(step) if isinstance(step, str) else step])

    return FunctionModel(answer)


def returned(result: Any) -> list[Any]:
    return [each for message in result.all_messages() for each in answers(message)]


def answers(message: ModelMessage) -> list[Any]:
    return [part.content for part in message.parts if isinstance(part, ToolReturnPart)]


async def asked_for(app: App, count: int = 1) -> list[Any]:
    while len(found := list(await app.questions())) < count:  # noqa: ASYNC110 - a home rings for no question
        await anyio.sleep(0.005)
    return found


async def vote(app: App, *, is_yes: bool, reason: str = "") -> None:
    for record in await asked_for(app):
        await app.governance.vote(record, is_yes=is_yes, by=OWNER, reason=reason)


async def program(app: App, source: str, agent: str = "default") -> Any:
    run = await app.result(await app.start(source, agent=agent), 20)
    return run.result


# --- Tools as a service ------------------------------------------------------------------------------------------------


async def test_an_agent_s_tools_are_typed_functions_of_programs(app):
    stub = app.describe(["desk.find_orders", "desk.refund"])
    assert "async def find_orders(*, customer: str, limit: int | None = ...) -> list[" in stub
    assert "[read]" in stub
    assert "# desk.refund - (asks for approval) Pay an order back.  [write]" in stub
    total = 'sum(o["euros"] for o in await desk.find_orders(customer="c", limit=3))'
    assert await program(app, total) == 63.0
    with pytest.raises(CheckFailed, match="customer"):
        await app.start("await desk.find_orders(client='c')")
    assert (await program(app, "await desk.who()")).startswith("ada ")


@pytest.mark.claim("G1.gated")
async def test_a_tool_that_needs_approval_waits_in_the_inbox_though_the_rules_allow_it(app, project):
    run_id = await app.start('await desk.refund(order={"id": 7, "euros": 4.5}, reason="broken")')
    (question,) = await asked_for(app)
    assert question.gate.reason == "its author wants each call approved"
    assert not (project / "log.txt").exists()
    await vote(app, is_yes=True)
    assert (await app.result(run_id, 20)).result == "paid 4.50 back"
    assert (project / "log.txt").read_text() == "7 broken\n"


async def test_a_rejected_tool_is_never_called(app, project):
    run_id = await app.start('await desk.refund(order={"id": 7, "euros": 4.5})')
    await vote(app, is_yes=False, reason="too dear")
    run = await app.result(run_id, 20)
    assert (run.status, run.result["kind"]) == (Status.FAILED, "PermissionError")
    assert "too dear" in run.result["message"]
    assert not (project / "log.txt").exists()


async def test_what_the_rules_forbid_nobody_is_asked_about(app):
    with pytest.raises(CheckFailed):
        await app.start('await desk.refund(order={"id": 7, "euros": 4.5})', agent="reader")


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("retry", "ValueError", "another one"),
        ("fail", "RuntimeError", "no such thing"),
        ("ask", "PermissionError", "requires_approval"),
    ],
)
async def test_what_a_tool_raises_is_an_error_of_the_program(app, how, kind, words):
    result = await program(app, f"await desk.fail(how={how!r})")
    assert result["kind"] == kind
    assert words in result["message"]


@pytest.mark.parametrize("path", ["desk_tools:nothing", "desk_tools:gone", "no_such_module:desk"])
async def test_an_object_that_offers_nothing_is_an_error_of_the_configuration(project, path):
    with pytest.raises(ConfigInvalid, match="desk"):
        async with open_test_app(project / "home", {}, directory=project, config=config(desk=path)):
            pass


# --- Programs ----------------------------------------------------------------------------------------------------------


@pytest.mark.claim("A1.pydantic_ai")
async def test_an_agent_s_program_is_checked_and_runs_as_the_home_s_agent(app):
    model = scripted(
        ToolCallPart("execute", {"program": "await desk.find_orders(client='c')"}),
        ToolCallPart("execute", {"program": "print('hello')\nlen(await desk.find_orders(customer=who))", "inputs": {"who": "c"}}),
        "two",
    )  # fmt: skip
    result = await Agent(model, toolsets=[code(Home.inside(app))]).run("how many?")
    refused, done = returned(result)
    assert "nothing ran" in refused
    assert "customer" in refused
    assert (done["status"], done["value"], done["printed"].strip()) == ("finished", 2, "hello")
    (run,) = [each for each in await app.runs(Page(limit=100)) if each.run_id == done["run"]]
    assert (run.agent, result.output) == ("default", "two")


async def test_a_program_that_takes_long_hands_out_its_run(app):
    source = "answer = await tools.ask('owner@example.com', 'go on?')\nanswer"
    seen: dict[str, Any] = {}
    is_out = anyio.Event()

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        said = answers(messages[-1])
        if not said:
            return ModelResponse(parts=[ToolCallPart("execute", {"program": source})])
        if said[0]["status"] == "goes on":
            seen.update(said[0])
            is_out.set()
            return ModelResponse(parts=[ToolCallPart("wait", {"run": said[0]["run"]})])
        return ModelResponse(parts=[TextPart(said[0]["value"])])

    async with anyio.create_task_group() as group:

        async def person() -> None:
            await is_out.wait()
            (question,) = await asked_for(app)
            await app.answer(question.call.key, "yes", by=OWNER)

        async def agent() -> None:
            made = Agent(FunctionModel(answer), toolsets=[code(Home.inside(app), answer_s=0.01)])
            seen["output"] = (await made.run("go")).output

        group.start_soon(person)
        group.start_soon(agent)
    assert seen["output"] == "yes"
    assert seen["why"]


async def test_the_instructions_are_the_brief_and_no_definition_is_in_them(app):
    told: list[str] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        told.append(info.instructions or "")
        assert {each.name for each in info.function_tools} == {"execute", "wait", "search", "describe"}
        if len(told) == 1:
            calls = [ToolCallPart("search", {"query": "orders"}), ToolCallPart("describe", {"names": ["desk.refund"]})]
            return ModelResponse(parts=calls)
        return ModelResponse(parts=[TextPart("done")])

    result = await Agent(FunctionModel(answer), toolsets=[code(Home.inside(app))]).run("look")
    assert told[0] == told[1]
    assert app.brief() in told[0]
    assert "find_orders" not in told[0]
    lines, stub = returned(result)
    assert lines[0].startswith("desk.find_orders(customer)")
    assert "async def refund" in stub


async def test_a_failed_program_says_why_and_another_agent_s_run_is_not_shown(app):
    other = await app.start("1", agent="reader")
    await app.result(other, 20)
    model = scripted(
        ToolCallPart("execute", {"program": "x = 0\n1 / x"}), ToolCallPart("wait", {"run": other}), "so be it"
    )
    failed, hidden = returned(await Agent(model, toolsets=[code(Home.inside(app))]).run("go"))
    assert "line 2: ZeroDivisionError" in failed
    assert "another agent" in hidden


# --- Approvals ---------------------------------------------------------------------------------------------------------


def durable(app: App, **options: Any) -> Durable:
    return Durable(sys.modules["desk_tools"].desk.toolset, Home.inside(app), "desk", **options)


REFUND = ToolCallPart("refund", {"order": {"id": 7, "euros": 4.5}, "reason": "broken"}, tool_call_id="call-1")


async def both(one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    found: list[Any] = []

    async def first() -> None:
        found.append(await one())

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        group.start_soon(other)
    return found[0]


async def test_a_durable_tool_waits_for_the_inbox_and_its_result_comes_back(app, project):
    agent = Agent(
        scripted(REFUND, "done"), toolsets=[durable(app, answer_s=0.01)],
        capabilities=[HandleDeferredToolCalls(handler=Approvals(Home.inside(app)))],
    )  # fmt: skip
    result = await both(lambda: agent.run("refund it"), lambda: vote(app, is_yes=True))
    assert returned(result) == ["paid 4.50 back"]
    assert (project / "log.txt").read_text() == "7 broken\n"


@pytest.mark.claim("A1.pydantic_ai")
async def test_days_later_another_process_brings_the_result_of_what_was_approved_meanwhile(app, project):
    agent = Agent(
        scripted(REFUND, "done"),
        toolsets=[durable(app, answer_s=0.01)],
        output_type=[str, DeferredToolRequests],
    )
    first = await agent.run("refund it")
    requests = first.output
    assert isinstance(requests, DeferredToolRequests)
    nothing = await Approvals(Home.inside(app)).settle(requests)
    assert nothing == DeferredToolResults()
    await vote(app, is_yes=True)
    results = await Approvals(Home.inside(app)).settle(requests, patience_s=20)
    assert results.calls == {"call-1": "paid 4.50 back"}
    second = await agent.run(message_history=first.all_messages(), deferred_tool_results=results)
    assert second.output == "done"
    assert (project / "log.txt").read_text() == "7 broken\n"


@pytest.mark.parametrize(("is_yes", "said"), [(True, "gone"), (False, "not that one")])
async def test_a_tool_in_the_agent_s_own_process_is_approved_in_the_inbox(app, is_yes, said):
    agent = Agent(
        scripted(ToolCallPart("delete", {"name": "a.txt"}), "done"),
        capabilities=[HandleDeferredToolCalls(handler=Approvals(Home.inside(app)))],
    )
    deleted: list[str] = []

    @agent.tool_plain(requires_approval=True)
    def delete(name: str) -> str:
        deleted.append(name)
        return "gone"

    async def person() -> None:
        (question,) = await asked_for(app)
        assert question.call.arguments == {"tool": "delete", "arguments": {"name": "a.txt"}}
        await vote(app, is_yes=is_yes, reason="not that one")

    result = await both(lambda: agent.run("delete it"), person)
    assert said in str(returned(result))
    assert deleted == (["a.txt"] if is_yes else [])


async def test_one_request_is_asked_once_however_often_it_is_settled(app):
    agent = Agent(scripted(ToolCallPart("delete", {"name": "a"})), output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def delete(name: str) -> str:
        return name

    requests = (await agent.run("go")).output
    assert isinstance(requests, DeferredToolRequests)
    for _ in range(3):
        await Approvals(Home.inside(app)).settle(requests)
    assert len(await asked_for(app)) == 1
