"""What the agent loop costs beside its model, and what an agent costs that waits for a slow one.

A step is a reply of the model, the check of the program in it, a run of that program with one call, and what came of it told. The model
of the first part is scripted and takes no time, so all of a step is ours; its time goes through the gateway, with its ledger: of a goal as long as goals are unless told otherwise, and of the last as many of a long one. In the second
part agents of a real server wait for a provider that is silent.
"""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import uvloop

from bench.parked import kill, serve
from bench.report import percentile, project, rss_kb
from bench.silence import silent
from bench.turns import TOOLS
from overwinter.brain import STEPS_MAX
from overwinter.config import load
from overwinter.faces.cli.door import served_socket
from overwinter.faces.cli.serving import spare_collections
from overwinter.faces.client import Client
from overwinter.testing import Heard, ScriptedModel, open_test_app

SETTINGS = """
[providers.mock]
url = "{url}"
dialects = ["messages"]
prices = "anthropic"
first_byte_s = 600

[models.claude-sonnet-5]
provider = "mock"

[gateway]
model = "claude-sonnet-5"
"""
AGENT = '[agents.default]\nowner = "owner"\ntools = ["*"]\n'
STEP = "```python\nawait work.double(number={number})\n```"


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    steps, waiting = (60, 100) if is_small else (300, 1_000)
    with project(TOOLS, SETTINGS.format(url="http://127.0.0.1:9")) as place:
        _permit(place)
        took_ms = anyio.run(stepped, place, steps, backend_options={"loop_factory": uvloop.new_event_loop})
    with silent() as url, project(TOOLS, SETTINGS.format(url=url)) as place:
        _permit(place)
        server = serve(place)
        try:
            held, each_kb, count = waited(place, server.pid, waiting)
        finally:
            kill(server)
    return {
        "steps": STEPS_MAX,
        "step_p50_ms": round(percentile(took_ms[:STEPS_MAX], 0.5), 2),
        "step_p99_ms": round(percentile(took_ms[:STEPS_MAX], 0.99), 2),
        "long_steps": len(took_ms),
        "long_step_p50_ms": round(percentile(took_ms[-STEPS_MAX:], 0.5), 2),
        "waiting": count,
        "workers_held": held,
        "rss_kb_each": round(each_kb, 1),
    }


def _permit(place: Path) -> None:
    """Let the agent ask the model."""
    config = place / "overwinter.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('tools = ["*"]', 'tools = ["*"]\nmodels = ["*"]'), encoding="utf-8")


async def stepped(place: Path, steps: int) -> list[float]:
    """Have a scripted model take steps, and return how long each took, milliseconds."""
    at: list[float] = []

    def say(heard: Heard) -> str:
        at.append(time.perf_counter())
        return STEP.format(number=heard.number) if heard.number < steps else "done"

    config = load(place / "overwinter.toml")
    async with open_test_app(
        place / ".overwinter", {}, directory=place, config=config, models=ScriptedModel(say)
    ) as app:
        spare_collections()  # as `overwinter serve` does
        run = await app.result(await app.start(goal="go on", steps=steps + 1))
    assert run.result["answer"] == "done", run.result
    return [(after - before) * 1_000 for before, after in pairwise(at[10:])]


def waited(place: Path, pid: int, count: int) -> tuple[int, float, int]:
    """Start agents whose model is silent; return the interpreters that they hold, KiB for each, and how many wait."""
    client = Client(served_socket(place / ".overwinter"))
    client.get("runs", client.post("runs", source="1")["id"], "result", wait_s=10)
    client.post("runs", goal="the first call loads what calls need")
    time.sleep(2.0)
    before = rss_kb(pid)
    for number in range(count):
        client.post("runs", goal=f"Say {number}.")
    deadline = time.monotonic() + 60
    while (health := client.get("health"))["calls_in_flight"] <= count and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    return health["interpreters_busy"], (rss_kb(pid) - before) / count, health["calls_in_flight"] - 1
