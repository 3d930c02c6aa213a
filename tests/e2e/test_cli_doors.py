"""Many commands and servers around one home: who comes, who goes, and what the others see of it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from overwinter import __version__
from overwinter.adapters.home import holder
from overwinter.faces.cli.commands import PLACES
from shells import Shell


def finish(process: subprocess.Popen[str]) -> int:
    """Close what is left of a process whose output was read line by line, and return its exit code."""
    code = process.wait(40)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    return code


def words(answer: subprocess.CompletedProcess[str]) -> str:
    return answer.stdout + answer.stderr


def test_commands_side_by_side_without_a_server_all_succeed_and_act_once(shell: Shell):
    (shell.place / "p.py").write_text("await tools.receive()\nawait tools.ask('me', 'on?')")
    run = shell("run", "p.py", "-d").stdout.strip()
    senders = [shell.popen("send", run, f"message {number}") for number in range(6)]
    for sender in senders:
        out, err = sender.communicate(timeout=50)
        assert (sender.returncode, out) == (0, "sent\n"), err
    events = [json.loads(line) for line in shell("logs", run, "--json").stdout.splitlines()]
    sent = sorted(event["body"]["value"] for event in events if event["kind"] == "message")
    assert sent == [f"message {number}" for number in range(6)]


def test_a_run_in_the_foreground_outlives_the_command_whose_server_it_used(shell: Shell):
    (shell.place / "first.py").write_text("await tools.receive()")
    (shell.place / "second.py").write_text("m = await tools.receive()\nm")
    first = shell.popen("run", "first.py")
    assert first.stdout is not None
    assert "created" in first.stdout.readline()
    second = shell.popen("run", "second.py")
    assert second.stdout is not None
    assert "created" in second.stdout.readline()
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=30)
    assert first.returncode == 23, err
    assert "overwinter logs" in err
    runs = json.loads(shell("ps", "--json").stdout)["runs"]
    run = next(each["id"] for each in runs if each["name"] == "second")
    assert shell("send", run, "hello").returncode == 0
    assert 'finished: "hello"' in second.stdout.read()
    assert finish(second) == 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_a_follower_goes_on_without_a_gap_when_the_server_goes(shell: Shell, stop: signal.Signals):
    (shell.place / "p.py").write_text("print('one')\nm = await tools.receive()\nprint('two')\nm")
    server = shell.serve()
    run = shell("run", "p.py", "-d").stdout.strip()
    follower = shell.popen("logs", run, "-f", "--json")
    assert follower.stdout is not None
    first = follower.stdout.readline()
    server.send_signal(stop)
    _, err = server.communicate(timeout=20)
    assert "Traceback" not in err
    assert shell("send", run, "x").returncode == 0
    events = [json.loads(line) for line in (first, *follower.stdout)]
    assert finish(follower) == 0
    assert [event["position"] for event in events] == list(range(len(events)))
    assert events[-1]["kind"] == "finished"


def test_a_server_whose_reader_leaves_serves_on(shell: Shell):
    server = shell.popen("serve", "--json")
    shell.servers.append(server)
    assert server.stdout is not None
    started = json.loads(server.stdout.readline())
    server.stdout.close()
    server.stdout = None
    assert (started["pid"], holder(shell.place / ".overwinter")) == (server.pid, server.pid)
    assert oct(Path(started["socket"]).stat().st_mode & 0o777) == "0o600"
    assert shell("ps").returncode == 0
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0


def test_the_socket_file_of_a_dead_server_is_replaced(shell: Shell):
    dead = shell.serve()
    dead.kill()
    dead.wait()
    assert (shell.place / ".overwinter" / "overwinter.sock").exists()
    server = shell.serve()
    assert f"process {server.pid} serves it" in shell("doctor").stdout


def test_a_server_waits_for_a_command_that_holds_the_home_for_a_moment(shell: Shell):
    (shell.place / "p.py").write_text("import asyncio\nawait asyncio.sleep(0.5)")
    command = shell.popen("run", "p.py")
    assert command.stdout is not None
    assert "created" in command.stdout.readline()
    server = shell.popen("serve")
    shell.servers.append(server)
    assert server.stdout is not None
    assert server.stdout.readline().startswith("serving")
    command.communicate(timeout=20)
    assert command.returncode == 0


def test_a_home_is_named_before_or_behind_the_command_or_by_the_environment(shell: Shell, tmp_path: Path):
    (shell.place / "p.py").write_text("1")
    home = str(tmp_path / "other home")
    assert shell("--home", home, "run", "p.py").returncode == 0
    assert "1 finished" in shell("ps", "--home", home).stdout
    shell.environment["OVERWINTER_HOME"] = home
    assert "1 finished" in shell("ps").stdout


BAD = {
    "input object": (["run", "p.py", "--input-json", "[1]"], 2, "takes a JSON object"),
    "input no json": (["run", "p.py", "--input-json", "{"], 2, "--input-json is not JSON"),
    "endless program": (["run", "/dev/zero"], 2, "more than 3 MB"),
    "directory as program": (["run", "."], 2, "cannot be read as a program"),
    "message no json": (["send", "ABCD", "--json-message", "{"], 2, "the message is not JSON"),
    "init on a file": (["init", "p.py"], 2, "nothing can be written to p.py"),
    "unknown command": (["shwo"], 2, "Did you mean 'show'?"),
    "unknown option": (["ps", "--nope"], 2, "--nope"),
    "unknown bench": (["bench"], 2, "source checkout"),
    "status": (["ps", "--status", "odd"], 2, "there are live, finished"),
    "home in a file": (["serve", "--home", "p.py/home"], 10, "cannot be used as a home"),
    "home too long": (["ps", "--home", "x" * 120], 10, "too long for a socket"),
}


@pytest.mark.claim("U3.errors")
@pytest.mark.parametrize("name", BAD)
def test_each_bad_word_gets_one_message_and_its_exit_code(shell: Shell, name: str):
    (shell.place / "p.py").write_text("1")
    command, code, message = BAD[name]
    answer = shell(*command)
    assert answer.returncode == code, words(answer)
    assert message in " ".join(words(answer).split())
    assert "Traceback" not in words(answer)


@pytest.mark.claim("U3.errors")
def test_a_tail_names_its_run_and_a_short_one_is_refused(shell: Shell):
    (shell.place / "p.py").write_text("1")
    ids = [shell("run", "p.py", "-d").stdout.strip()]
    assert shell("show", ids[0][-4:]).returncode == 0
    short = shell("show", ids[0][-3:])
    assert (short.returncode, "at least 4" in short.stderr) == (2, True)


def test_inputs_come_from_an_object_and_from_words_and_words_win(shell: Shell):
    (shell.place / "p.py").write_text("[a, b, c]")
    ran = shell("run", "p.py", "--input-json", '{"a": 1, "b": 2}', "-i", "b=[3]", "-i", "c=plain text", "--json")
    assert ran.returncode == 0, words(ran)
    assert json.loads(ran.stdout.splitlines()[-1])["result"] == [1, [3], "plain text"]


def test_only_checking_runs_nothing(shell: Shell):
    (shell.place / "p.py").write_text("print('ran')")
    checked = shell("run", "p.py", "--check-only")
    assert (checked.returncode, checked.stdout) == (0, "the program is accepted\n")
    assert "no runs yet" in shell("ps", "--all").stdout
    (shell.place / "p.py").write_text("import nothing")
    refused = shell("run", "p.py", "--json")
    assert refused.returncode == 3
    assert json.loads(refused.stdout)["error"]["findings"][0]["line"] == 1


@pytest.mark.claim("U3.errors")
def test_doctor_says_once_what_is_wrong_with_a_file_and_what_it_could_not_look_at(shell: Shell):
    (shell.place / "overwinter.toml").write_text("[agents]\nx = = 1")
    found = shell("doctor", "--json")
    assert found.returncode == 1
    states = {each["what"]: (each["state"], each["found"]) for each in json.loads(found.stdout)["findings"]}
    assert [what for what, (state, _) in states.items() if state == "wrong"] == ["configuration"]
    assert states["tools"] == ("gap", "not looked at: see configuration")


@pytest.mark.claim("U3.errors")
def test_doctor_finds_a_lost_key_and_a_module_that_does_not_load(shell: Shell):
    assert shell("ps").returncode == 0
    (shell.place / ".overwinter" / "keys" / "snapshot.key").unlink()
    (shell.place / f"{(shell.place / 'module').read_text()}.py").write_text("import absent_module")
    found = shell("doctor", "--json")
    assert found.returncode == 1
    states = {each["what"]: each["state"] for each in json.loads(found.stdout)["findings"]}
    assert (states["store"], states["tools"], states["configuration"]) == ("wrong", "wrong", "well")


@pytest.mark.claim("U3.errors")
def test_doctor_names_each_credential_that_is_not_there(shell: Shell):
    config = shell.place / "overwinter.toml"
    config.write_text(
        config.read_text()
        + """
[services.desk]
mcp = "false"
auth = "env:ABSENT_AUTH"
env = { DESK_TOKEN = "env:ABSENT_TOKEN" }
[webhooks.pager]
url = "https://hooks.example.com"
secret = "env:ABSENT_SECRET"
events = ["run.ended"]
[providers.mock]
url = "https://models.example.com"
dialects = ["chat"]
auth = "env:ABSENT_KEY"
"""
    )
    found = shell("doctor", "--json")
    assert found.returncode == 0
    gaps = {each["what"]: each["found"] for each in json.loads(found.stdout)["findings"] if each["state"] == "gap"}
    assert gaps.keys() >= {"tools", "models", "webhooks"}
    assert "ABSENT_AUTH" in gaps["tools"]
    assert "ABSENT_TOKEN" in gaps["tools"]
    assert "ABSENT_KEY" in gaps["models"]
    config.write_text(config.read_text().replace('mcp = "false"', 'mcp = "there-is-no-such-program serve"'))
    found = shell("doctor", "--json")
    assert found.returncode == 1
    (wrong,) = [each["found"] for each in json.loads(found.stdout)["findings"] if each["state"] == "wrong"]
    assert "no program 'there-is-no-such-program'" in wrong
    assert "ABSENT_SECRET" in gaps["webhooks"]


def test_starting_the_command_loads_neither_server_nor_interpreter_nor_http():
    script = (
        "import atexit, sys; from overwinter.faces.cli import cli; "
        "atexit.register(lambda: print([name for name in ('starlette', 'uvicorn', 'pydantic_monty', 'apsw', 'http.client', 'anyio', "
        "'asyncio', 'pydantic', 'rich', 'overwinter.faces.cli.tools', 'overwinter.faces.cli.audit') if name in sys.modules])); "
        "cli(['--version'])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout == f"overwinter {__version__}\n[]\n"


def test_a_command_beside_a_server_loads_neither_server_nor_store_nor_interpreter(shell: Shell):
    script = (
        "import atexit, sys; from overwinter.faces.cli import cli; "
        "atexit.register(lambda: print([name for name in ('starlette', 'uvicorn', 'pydantic_monty', 'apsw', 'cedarpy', "
        "'asyncio', 'overwinter.app') if name in sys.modules], file=sys.stderr)); cli()"
    )
    shell.serve()
    for words in (["ps"], ["agents"], ["audit", "log"], ["inbox"], ["tools", "list"]):
        asked = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=shell.place,
            env=shell.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (asked.returncode, asked.stderr) == (0, "[]\n"), words


def test_help_lists_the_commands_of_every_module_and_a_slip_of_the_key_is_told_the_nearest(shell: Shell):
    listed = shell("--help").stdout
    assert all(f" {name} " in listed for name in ("run", "ps", *PLACES))
    assert "'agents'" in shell("agent").stderr
    for name in PLACES:
        assert f"overwinter {name} " in shell(name, "--help").stdout
