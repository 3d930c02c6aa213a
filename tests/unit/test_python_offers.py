"""Objects that offer functions by themselves: what they say becomes types, effects and gates; what they raise, errors."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from overwinter.adapters.mcp_servers.tools import operations
from overwinter.app import App
from overwinter.config import Agent, Config, Service, Worker
from overwinter.errors import CheckFailed, ConfigInvalid, Denied
from overwinter.events import CallState
from overwinter.testing import OWNER, idle, open_test_app

MODULE = """
import asyncio

class Desk:
    def __init__(self):
        self.calls = []

    async def tools(self):
        number = {"type": "integer"}
        def tool(name, **more):
            return {"name": name, "inputSchema": {"type": "object", "properties": {"class": number, "b": number}, "required": ["class"]}, **more}
        return [
            tool("add-up", description="Add up.", outputSchema=number, annotations={"readOnlyHint": True}),
            tool("pay", description="Pay.", isGated=True),
            tool("hang", timeoutSeconds=0.01, annotations={"readOnlyHint": True}),
            tool("break"),
            {"name": "mark", "inputSchema": {
                "$defs": {"base": {"type": "object", "properties": {"id": number}, "required": ["id"]}},
                "$ref": "#/$defs/base",
                "required": ["value", "extra"],
                "properties": {"extra": number},
                "allOf": [
                    {"$ref": "#nowhere"}, {"required": ["state"]},
                    *[{"$ref": "#"}] * 40,
                    {"oneOf": [{"allOf": [{"$ref": "#/$defs/base"}]}, {"allOf": [{"$ref": "#/$defs/base"}]}]},
                    {"properties": {"value": {}, "state": {"enum": ["open", None]}}},
                ],
                "oneOf": [
                    {"properties": {"by": number, "why": {"type": "string"}}, "required": ["by", "why"]},
                    {"properties": {"by": {"type": "string"}}, "required": ["by"]},
                ],
            }},
        ]

    async def call(self, name, arguments, key):
        self.calls.append((name, dict(arguments), str(key).rpartition(":")[2]))
        if name == "hang":
            await asyncio.sleep(60)
        if name == "mark":
            return arguments
        if name == "break":
            raise RuntimeError("half way")
        return arguments["class"] + arguments.get("b", 0)

class Broken:
    async def tools(self):
        raise OSError("no disk")
    async def call(self, name, arguments, key): ...

class Nameless(Desk):
    async def tools(self):
        return [{"inputSchema": {}}]

desk, broken, nameless = Desk(), Broken(), Nameless()
"""


ALL = Agent(owner=OWNER, tools=("*",))


@pytest.fixture
def place(tmp_path: Path):
    before = list(sys.path)
    (tmp_path / "offering.py").write_text(MODULE)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("offering", None)


def config(python: str = "offering:desk", *, agent: Agent = ALL, **effects: Any) -> Config:
    services = {"desk": Service(python=python, effects=effects)}
    return Config(agents={"default": agent}, services=services, worker=Worker(interpreters=1))


@pytest.fixture
async def app(place: Path) -> AsyncGenerator[App]:
    async with open_test_app(place / "home", {}, directory=place, config=config()) as opened:
        yield opened


def calls() -> list[Any]:
    return sys.modules["offering"].desk.calls


async def result(app: App, source: str) -> Any:
    return (await app.result(await app.start(source), 20)).result


async def test_what_it_offers_is_typed_and_called_by_its_own_names(app):
    stub = app.describe(["desk.add_up"])
    assert "async def add_up(*, class_: int, b: int | None = ...) -> int: ..." in stub
    assert "[read]" in stub
    assert await result(app, "await desk.add_up(class_=2, b=None) + await desk.add_up(class_=3, b=4)") == 9
    assert [each[:2] for each in calls()] == [("add-up", {"class": 2}), ("add-up", {"class": 3, "b": 4})]
    with pytest.raises(CheckFailed):
        await app.start("await desk.add_up(class_='2')")
    assert next(iter(app.search("add up"))).name == "desk.add_up"


def test_a_schema_of_many_parts_is_read_in_bounded_time():
    parts = [{"$ref": f"#a{number}"} for number in range(100_000)] + [
        {"properties": {f"p{n}": {}}} for n in range(1_000)
    ]
    wide = [{"properties": {"a": {"enum": [number, *range(300)]}}} for number in range(2_000)]
    for schema in (
        {"allOf": parts},
        {"anyOf": wide},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}] * 1_000}}, "$ref": "#/$defs/a"},
    ):
        (found,), faults = operations([{"name": "a", "inputSchema": schema}])
        assert (faults, len(found.arguments) <= 200) == ([], True)


def test_a_reference_used_twice_requires_what_it_requires_and_variants_that_were_not_read_nothing():
    base = {"properties": {"id": {"type": "integer"}}, "required": ["id"]}
    again = {
        "$defs": {"base": base},
        "oneOf": [{"allOf": [{"$ref": "#/$defs/base"}]}, {"allOf": [{"$ref": "#/$defs/base"}]}],
    }
    many = {"properties": {"x": {}}, "anyOf": [*[{"required": ["x"]}] * 300, {"properties": {"y": {}}}]}
    found, _ = operations([{"name": "a", "inputSchema": again}, {"name": "b", "inputSchema": many}])
    assert [(each.wire, each.is_required) for tool in found for each in tool.arguments] == [("id", True), ("x", False)]


async def test_arguments_in_parts_and_variants_are_parameters_and_null_is_given_where_something_must_be(app):
    assert (
        "async def mark(*, extra: int, id: int, value: Any, state: Literal['open', None], by: int | str, why: str | None = ...)"
        in app.describe(["desk.mark"])
    )
    given = {"extra": 2, "id": 1, "value": None, "state": None, "by": "ana"}
    assert await result(app, "await desk.mark(extra=2, id=1, value=None, state=None, by='ana', why=None)") == given
    with pytest.raises(CheckFailed):
        await app.start("await desk.mark(extra=2, id=1, value=None, by=1)")


@pytest.mark.claim("G1.gated")
async def test_a_gated_function_waits_for_the_owner_though_the_rules_allow_it(app):
    run_id = await app.start("await desk.pay(class_=7)")
    await idle(app)
    (question,) = await app.questions()
    assert (question.person, calls()) == (OWNER, [])
    with pytest.raises(Denied):
        await app.governance.vote(question, is_yes=True, by="somebody@example.com")
    await app.governance.vote(question, is_yes=True, by=OWNER)
    assert (await app.result(run_id, 20)).result == 7
    assert calls() == [("pay", {"class": 7}, "0")]


async def test_a_gated_function_that_no_rule_allows_is_denied_and_nobody_is_asked(place):
    allowed = config(agent=Agent(owner=OWNER, tools=("desk.add_up",)))
    async with open_test_app(place / "home", {}, directory=place, config=allowed) as app:
        run_id = await app.start("await tools.call('desk.' + 'pay', {'class_': 7})")
        assert (await app.result(run_id, 20)).result["kind"] == "PermissionError"
        assert await app.questions() == []
        assert calls() == []


async def test_a_write_that_breaks_is_of_unknown_outcome_and_a_time_out_is_taken_over(app):
    run_id = await app.start("await desk.break_(class_=1)")
    await idle(app)
    (question,) = await app.questions()
    assert question.state is CallState.UNKNOWN
    await app.cancel(run_id, by=OWNER)
    assert app.catalog.modules["desk"].functions["hang"].timeout_s == 0.01


async def test_the_operator_s_word_on_effects_goes_before_the_object_s(place):
    told = config(break_="read")
    async with open_test_app(place / "home", {}, directory=place, config=told) as app:
        function = app.catalog.function("desk.break_")
        assert function is not None
        assert function.effect == "read"


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("offering:gone", "no object that offers"),
        ("offering:MODULE", "no object that offers"),
        ("offering:broken", "no disk"),
        ("offering:nameless", "it has no name"),
        ("nowhere:desk", "cannot be imported"),
    ],
)
async def test_an_object_that_cannot_be_used_is_named(place, python, words):
    with pytest.raises(ConfigInvalid, match=words):
        async with open_test_app(place / "home", {}, directory=place, config=config(python)):
            await anyio.lowlevel.checkpoint()
