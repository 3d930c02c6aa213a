"""MCP servers as services: real servers over stdio, one that others wrote and one that misbehaves."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nasty
from kit import opened
from overwinter.adapters.catalog_file import open_catalog_file
from overwinter.adapters.mcp_servers import load_mcp
from overwinter.adapters.mcp_servers.tools import answer, operations, resolver
from overwinter.adapters.vault import Vault
from overwinter.catalog.modules import built
from overwinter.config import Agent, Config, Service, Worker
from overwinter.errors import CheckFailed, UsageError
from overwinter.events import Raised, Returned, Status
from overwinter.testing import OWNER, ManualClock, finish, idle

pytestmark = pytest.mark.anyio
ODD = '''
import os, sys, time
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult, ToolAnnotations

server = MCPServer("odd")
READS = ToolAnnotations(read_only_hint=True)


@server.tool(annotations=READS)
def pid() -> int:
    """Say who answers."""
    return os.getpid()


@server.tool(annotations=READS)
def fail() -> str:
    """Fail."""
    raise ValueError("not today")


@server.tool(annotations=READS)
def die_once(path: str) -> str:
    """Die at the first call, answer at the second."""
    if os.path.exists(path):
        return "alive again"
    open(path, "w").close()
    os._exit(1)


@server.tool()
def die(path: str) -> str:
    """Carry out, and die before the answer."""
    with open(path, "a") as file:
        file.write("done\\n")
    os._exit(1)


@server.tool()
def pay(ctx: Context, path: str) -> str | InputRequiredResult:
    """Ask whether, and how much; then carry out, once."""
    said = ctx.input_responses
    if said is None:
        ask = lambda message, **fields: ElicitRequest(params=ElicitRequestFormParams(
            message=message, requested_schema={"type": "object", "properties": fields, "required": list(fields)}))
        wanted = {"sure": ask("Sure?", sure={"type": "boolean"}), "cents": ask("How much?", cents={"type": "integer"})}
        return InputRequiredResult(input_requests=wanted, request_state="state of the server")
    assert ctx.request_state == "state of the server"
    if said["sure"].action != "accept":
        return "declined"
    with open(path, "a") as file:
        file.write(f"paid {said['cents'].content['cents']}\\n")
    return "paid"


server.run()
'''


def configured(**services: Service) -> Config:
    return Config(
        agents={"default": Agent(owner=OWNER, tools=("*",))}, worker=Worker(interpreters=1), services=services
    )


async def ran(project: Path, source: str, config: Config, **inputs: Any) -> Any:
    clock = ManualClock()
    async with opened(project, clock=clock, config=config) as app:
        run_id = await app.start(source, inputs=inputs)
        return await finish(app, run_id, clock, answers={"unknown": "failed nobody knows"})


@pytest.fixture
def odd(project: Path) -> Config:
    (project / "odd.py").write_text(ODD)
    return configured(odd=Service(mcp=f"{sys.executable} odd.py"))


def repository_in(place: Path) -> Path:
    repository = place / "repository"
    repository.mkdir()
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first words"]):
        subprocess.run([*git, *words], cwd=repository, check=True, env={**os.environ, "HOME": str(place)})
    return repository


async def test_a_server_that_others_wrote_is_a_typed_module(project):
    repository = repository_in(project)
    config = configured(git=Service(mcp=f"{Path(sys.executable).parent / 'mcp-server-git'}"))
    source = "[await git.log(repo_path=path, max_count=1), await git.status(repo_path=path), (await tools.search('commit history'))[0]]"
    run = await ran(project, source, config, path=str(repository))
    assert run.status is Status.FINISHED, run.result
    log, status, hit = run.result
    assert "first words" in log
    assert "nothing to commit" in status
    assert hit.startswith("git.")
    async with opened(project, clock=ManualClock(), config=config) as app:
        with pytest.raises(CheckFailed, match="repo_pth"):
            await app.start("await git.status(repo_pth='x')")


async def test_what_a_server_asks_is_a_question_to_a_person_and_outlives_the_process(project, odd):
    clock = ManualClock()
    async with opened(project, clock=clock, config=odd) as app:
        run_id = await app.start("await odd.pay(path=path)", inputs={"path": str(project / "acts")})
        await idle(app)
        (question,) = await app.questions(run_id)
        assert (question.person, question.call.more["question"]) == (OWNER, "Sure?")
        with pytest.raises(UsageError, match="not an option"):
            await app.answer(f"{run_id}:0", "perhaps", by="p")
        await app.answer(f"{run_id}:0", "yes", by="p")
        await idle(app)
    async with opened(project, clock=clock, config=odd) as app:  # in another process the server has no memory of it
        (question,) = await app.questions(run_id)
        assert question.call.more["question"].startswith("How much?")
        await app.answer(f"{run_id}:0", "a lot", by="p")
        await idle(app)
        (question,) = await app.questions(run_id)
        assert "'a lot' does not do" in question.call.more["question"]
        await app.answer(f"{run_id}:0", "17", by="p")
        run = await finish(app, run_id, clock)
        journal = [event.kind async for event in app.events(run_id)]
    assert run.result == {"result": "paid"}
    assert (project / "acts").read_text() == "paid 17\n"
    assert journal.count("asked") == 3


async def test_an_error_of_a_tool_is_the_error_of_its_call(project, odd):
    run = await ran(project, "await odd.fail()", odd)
    assert (run.status, run.result["kind"]) == (Status.FAILED, "RuntimeError")
    assert "fail" in run.result["message"]


async def test_a_server_that_dies_is_started_again_for_the_next_attempt_of_a_read(project, odd):
    source = "a = await odd.pid()\nb = await odd.die_once(path=path)\nc = await odd.pid()\n[a != c, b]"
    run = await ran(project, source, odd, path=str(project / "died"))
    assert run.status is Status.FINISHED, run.result
    has_changed, said = run.result
    assert has_changed
    assert "alive again" in str(said)


@pytest.mark.claim("D4.write_parks")
async def test_a_write_whose_server_dies_under_it_is_unknown_and_not_repeated(project, odd):
    run = await ran(project, "await odd.die(path=path)", odd, path=str(project / "acts"))
    assert run.status is Status.FAILED
    assert (project / "acts").read_text() == "done\n"


@pytest.mark.claim("G8.changed")
async def test_a_server_that_changed_a_tool_is_found_out_before_the_tool_is_called(project, odd):
    async with opened(project, clock=ManualClock(), config=odd):
        pass
    (project / "odd.py").write_text(ODD.replace("Say who answers.", "Say who answers, and send it to everybody."))
    run = await ran(project, "await odd.pid()", odd)
    assert (run.status, run.result["kind"]) == (Status.FAILED, "PermissionError")
    assert "accepted" in run.result["message"]


async def test_a_request_that_a_server_does_not_take_is_an_error_and_the_server_goes_on(project, odd):
    source = """
before = await odd.pid()
try:
    await odd.die(path=path)
except RuntimeError as error:
    said = str(error)
[before == await odd.pid(), said]
"""
    (project / "odd.py").write_text(
        ODD.replace(
            "    with open(path",
            "    from mcp import MCPError\n    raise MCPError(-32602, 'wrong')\n    with open(path",
        )
    )
    run = await ran(project, source, odd, path="x")
    assert run.status is Status.FINISHED, run.result
    assert run.result[0]
    assert "wrong" in run.result[1]


@pytest.mark.parametrize("command", ["no-such-command", f"{sys.executable} -c 'print(1)'"])
async def test_a_server_that_does_not_start_is_a_fault_of_its_service_until_it_does(project, command):
    good, clock = Service(mcp=f"{sys.executable} {nasty.__file__} fine"), ManualClock()
    async with opened(project, clock=clock, config=configured(bad=Service(mcp=command), good=good)) as app:
        (bad, _) = [each for each in app.sources() if each.service in ("bad", "good")]
        assert (bad.functions, "it does not start" in bad.faults[0].what) == (0, True)
        assert (await finish(app, await app.start("await good.fine()"), clock)).result == "fine"
        with pytest.raises(CheckFailed):
            await app.start("await bad.fine()")
        done = await app.refresh()
        assert (list(done.imported), list(done.failed)) == (["good"], ["bad"])
    async with opened(project, clock=clock, config=configured(bad=good)) as app:  # it was mended
        assert (await finish(app, await app.start("await bad.fine()"), clock)).result == "fine"


async def test_servers_that_hang_at_start_are_waited_for_side_by_side(project):
    services = {f"hangs{number}": Service(mcp=f"{sys.executable} {nasty.__file__} 'hang at start'") for number in "123"}
    services["good"] = Service(mcp=f"{sys.executable} {nasty.__file__} fine")
    begun: list[str] = []
    handles: Any = SimpleNamespace(kept_bytes_max=1 << 20)
    with open_catalog_file(project / "catalog.db") as file:
        loading = load_mcp(
            services, file, ManualClock(), handles,
            directory=project, vault=Vault(project), importing=begun.append, config=Config(), start_s_max=4.0,
        )  # fmt: skip
        began_s = time.monotonic()
        async with loading as mcp:
            took_s = time.monotonic() - began_s
            assert begun == list(services)
            assert set(mcp.stale) == {"hangs1", "hangs2", "hangs3"}
            assert "did not answer within 4 s" in mcp.stale["hangs1"]
            assert "fine" in mcp.catalog.modules["good"].functions
    assert took_s < 11


def test_schemas_of_two_tools_keep_their_own_definitions():
    def tool(name: str, kind: str) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": kind}}}
        return {"name": name, "inputSchema": schema, "outputSchema": schema}

    tools = [tool("a", "string"), tool("b", "integer"), {"name": "c"}, {"inputSchema": {}}]
    found, faults = operations(tools)
    module = built("svc", found, resolver(tools))
    assert [each.function.stub for each in module.functions] == [
        "async def a(*, x: str | None = ...) -> AResult: ...",
        "async def b(*, x: int | None = ...) -> BResult: ...",
    ]
    assert [fault.place for fault in faults] == ["c", "a tool"]
    assert not module.faults


def test_a_result_is_its_structure_else_its_text_else_its_parts():
    text = {"type": "text", "text": "t"}
    assert answer({"content": [text], "structuredContent": {"a": 1}}) == Returned(value={"a": 1})
    assert answer({"content": [text, text]}) == Returned(value="t\nt")
    image = {"type": "image", "data": "x"}
    assert answer({"content": [text, image]}) == Returned(value=[text, image])
    assert answer({"content": [text], "isError": True}) == Raised(kind="RuntimeError", message="t")


def test_a_tool_whose_name_is_a_word_of_the_stubs_or_another_tools_is_called_by_a_longer_one():
    names = ["list", "str", "get-item", "get_item", "plain"]
    tools = [{"name": each, "inputSchema": {"type": "object"}} for each in names]
    found, faults = operations(tools)
    module = built("notes", found, resolver(tools))
    assert [each.function.name for each in module.functions] == [
        "notes.list_tool", "notes.str_tool", "notes.get_item", "notes.get_item_tool", "notes.plain",
    ]  # fmt: skip
    assert [*faults, *module.faults] == []
