"""An agent of Pydantic AI whose home is killed while a person is asked: as docs/pydantic-ai.md says, in real processes."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent, FunctionToolset
from pydantic_ai.capabilities import HandleDeferredToolCalls
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from overwinter.pydantic_ai import Approvals, Durable, Home
from sdks import quiet
from shells import Shell, until

pytestmark = quiet
PAGE = (Path(__file__).parents[2] / "docs" / "pydantic-ai.md").read_text(encoding="utf-8")
TOOLS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
CONFIG = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
PAID = '    with open("paid.txt", "a") as log:\n        log.write(f"{order}\\n")\n    return f"{cents'


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    (tmp_path / "desk.py").write_text(TOOLS.replace('    return f"{cents', PAID))
    (tmp_path / "overwinter.toml").write_text(CONFIG)
    yield made
    made.close()


def refund(order: int, cents: int) -> str:
    """Pay an order back."""
    raise AssertionError("the home carries it out")


def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Refund an order, then say what came back."""
    del info
    said = [part.content for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
    call = ToolCallPart("refund", {"order": 3, "cents": 3000})
    return ModelResponse(parts=[TextPart(str(said[0])) if said else call])


@pytest.mark.claim("A1.pydantic_ai")
def test_a_home_that_is_killed_while_a_person_is_asked_pays_once_and_the_agent_goes_on(shell: Shell):
    server = shell.serve()
    output: list[str] = []

    async def agent() -> None:
        async with Home.served(shell.place / ".overwinter") as home:
            tools = Durable(FunctionToolset([refund]), home, "desk", answer_s=0.01)
            made = Agent(
                FunctionModel(model), toolsets=[tools], capabilities=[HandleDeferredToolCalls(handler=Approvals(home))]
            )
            output.append((await made.run("refund it")).output)

    def person() -> None:
        until(lambda: asked(shell))
        server.send_signal(signal.SIGKILL)
        server.wait()
        shell.serve()
        (question,) = asked(shell)
        done = shell("approve", question["question"], "--as", "ana@example.com")
        assert done.returncode == 0, done.stderr

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(agent)
            await anyio.to_thread.run_sync(person)

    anyio.run(both)
    assert output == ["30.00 paid back for order 3"]
    assert (shell.place / "paid.txt").read_text() == "3\n"


def asked(shell: Shell) -> list[Any]:
    return json.loads(shell("inbox", "--json").stdout)["questions"]
