"""What docs/pydantic-ai.md shows works as it stands there: against a served home, on its own socket."""

import re
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from overwinter.app import App
from overwinter.config import load
from overwinter.faces.server import serve
from overwinter.pydantic_ai import Home
from sdks import quiet

pytestmark = [pytest.mark.anyio, quiet]
PAGE = (Path(__file__).parents[2] / "docs" / "pydantic-ai.md").read_text(encoding="utf-8")
TOOLS, AGENT, PROGRAM = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[:3]
CONFIG = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch):
    (tmp_path / "desk.py").write_text(TOOLS)
    (tmp_path / "worker.py").write_text(AGENT)
    (tmp_path / "overwinter.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("desk", "worker"):
        sys.modules.pop(name, None)


async def test_the_tutorial_works(place):
    said: list[Any] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        said.append(getattr(messages[-1].parts[-1], "content", None))
        steps = [
            ToolCallPart("execute", {"program": PROGRAM}),
            ToolCallPart("refund", {"order": 3, "cents": 3000}),
            TextPart("done"),
        ]
        return ModelResponse(parts=[steps[len(said) - 1]])

    stop, started = anyio.Event(), anyio.Event()
    assert load(place / "overwinter.toml").services["desk"].python == "desk:desk"
    async with App.open(place / ".overwinter") as app, anyio.create_task_group() as group:
        group.start_soon(lambda: serve(app, place / ".overwinter", lambda _: started.set(), stop))
        await started.wait()

        async def person() -> None:
            while not (found := await app.questions()):  # noqa: ASYNC110 - a home rings for no question
                await anyio.sleep(0.005)
            await app.governance.vote(found[0], is_yes=True, by="ana@example.com")

        group.start_soon(person)
        work = __import__("worker").work
        assert await work("refund ben's dearest order", FunctionModel(answer)) == "done"
        stop.set()
    assert said[1]["value"] == 5000
    assert said[2] == "30.00 paid back for order 3"


async def test_a_home_that_stops_is_waited_for(place):
    home = Home.served(place / ".overwinter")
    ended: list[Any] = []
    run_id = ""
    async with home, anyio.create_task_group() as group:

        async def ends(run_id: str) -> None:
            ended.append(await home.ended(run_id))

        for answers in (False, True):
            stop, started = anyio.Event(), anyio.Event()
            async with App.open(place / ".overwinter") as app, anyio.create_task_group() as serving:
                serving.start_soon(serve, app, place / ".overwinter", lambda _, told=started: told.set(), stop)
                await started.wait()
                if not answers:
                    run_id = await home.start("await tools.ask('ana@example.com', 'well?')")
                    group.start_soon(ends, run_id)
                    await home.asked("GET", f"runs/{run_id}")
                else:
                    while not (found := await app.questions()):  # noqa: ASYNC110 - a home rings for no question
                        await anyio.sleep(0.005)
                    await app.answer(found[0].call.key, "yes", by="ana@example.com")
                    await app.result(run_id, 20)
                    while not ended:  # noqa: ASYNC110 - the same
                        await anyio.sleep(0.005)
                stop.set()
    assert ended[0]["result"] == "yes"
