"""The command line as people and scripts use it: first steps, waits, questions, and every bad input."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from overwinter import __version__
from shells import until


def words(answer) -> str:
    return answer.stdout + answer.stderr


@pytest.mark.claim("U1.first_steps")
def test_init_and_run_work_as_the_readme_says(shell, tmp_path):
    assert shell("init", "new").returncode == 0
    program = tmp_path / "new" / "remind.py"
    program.write_text(program.read_text().replace("sleep(3)", "sleep(0.1)"))
    shell.place = tmp_path / "new"
    ran = shell("run", "remind.py", "--input", "invoice_id=17")
    assert ran.returncode == 0, words(ran)
    assert "invoices.remind" in ran.stdout
    assert "finished: [" in ran.stdout
    assert shell("doctor").returncode == 0
    assert "1 finished" in shell("ps").stdout


def test_version_is_printed(shell):
    assert shell("--version").stdout.strip() == f"overwinter {__version__}"


def test_one_function_is_called_with_its_arguments(shell):
    called = shell("tools", "call", "shop.double", "number=21")
    assert (called.returncode, called.stdout) == (0, "42\n"), words(called)


def test_a_date_and_an_amount_are_given_as_json_writes_them_and_arrive_as_what_they_are(shell):
    (shell.place / "typed.py").write_text("""
from datetime import date
from decimal import Decimal
from overwinter import read

@read
async def due(*, day: date, amount: Decimal, state: str) -> str:
    return f"{day.year} {amount + 1} {state}"
""")
    (shell.place / "overwinter.toml").write_text(
        '[agents.default]\ntools = ["*"]\n[services.typed]\npython = "typed"\n'
    )
    called = shell("tools", "call", "typed.due", "day=2026-01-02", 'amount="1.50"', "state=open")
    assert (called.returncode, called.stdout) == (0, '"2026 2.50 open"\n'), words(called)
    for wrong, what in (
        ("day=soon", "day: must be a date, not str 'soon'"),
        ("state=1", "state: must be str, not int 1"),
    ):
        given = {
            "day": "day=2026-01-02",
            "amount": 'amount="1.50"',
            "state": "state=open",
            wrong.partition("=")[0]: wrong,
        }
        refused = shell("tools", "call", "typed.due", *given.values())
        assert refused.returncode != 0
        assert what in words(refused)


def test_a_question_is_shown_with_the_command_that_answers_it(shell):
    (shell.place / "p.py").write_text("await tools.ask('me@example.com', 'Charge 5 EUR?', options=['yes', 'no'])")
    shell.serve()
    run = shell("run", "p.py", "-d").stdout.strip()
    until(lambda: "me@example.com" in shell("questions").stdout)
    shown = shell("show", run[-8:]).stdout
    assert "waits for me@example.com to answer since" in shown
    line = next(line for line in shown.splitlines() if "overwinter answer" in line)
    question = line.split()[2]
    assert shell("answer", question, "perhaps").returncode == 2
    assert shell("answer", question, "yes").returncode == 0
    again = shell("answer", question, "yes")
    assert again.returncode == 5
    until(lambda: json.loads(shell("show", run, "--json").stdout)["status"] == "finished")
    assert json.loads(shell("show", run, "--json").stdout)["result"] == "yes"


def test_who_starts_a_run_in_a_home_that_nobody_serves_is_told_so(shell):
    (shell.place / "p.py").write_text("1")
    begun = shell("run", "p.py", "-d")
    assert "nobody serves this home yet: it waits for `overwinter" in begun.stderr
    shell.serve()
    until(lambda: json.loads(shell("show", begun.stdout.strip(), "--json").stdout)["status"] == "finished")
    assert shell("run", "p.py", "-d").stderr == ""


def test_logs_follow_until_the_end_and_json_lines_parse(shell):
    (shell.place / "p.py").write_text("print('one')\nm = await tools.receive()\nprint(m)\nm")
    shell.serve()
    run = shell("run", "p.py", "-d").stdout.strip()
    following = shell.popen("logs", run, "-f", "--json")
    shell("send", run, "two")
    out, _ = following.communicate(timeout=20)
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["position"] for event in events] == list(range(len(events)))
    assert events[-1]["kind"] == "finished"
    assert "|  one" in shell("logs", run).stdout


def test_ctrl_c_detaches_and_says_how_to_come_back(shell):
    (shell.place / "p.py").write_text("await tools.receive()")
    shell.serve()
    foreground = shell.popen("run", "p.py")
    assert "created" in foreground.stdout.readline()
    foreground.send_signal(signal.SIGINT)
    _, err = foreground.communicate(timeout=20)
    assert foreground.returncode == 23
    assert "overwinter logs" in err
    assert "1 live" in shell("ps").stdout


def test_a_terminal_never_sees_control_characters_of_a_program(shell):
    (shell.place / "p.py").write_text("print('\\x1b[31mred\\x07')")
    ran = shell("run", "p.py")
    assert "\x1b" not in ran.stdout
    assert "\\x1b[31mred" in ran.stdout


def test_a_reader_that_leaves_is_no_error(shell):
    piped = subprocess.run(["sh", "-c", "overwinter ps --all | head -n 0"], cwd=shell.place, env=shell.environment,
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert "Traceback" not in piped.stderr


@pytest.mark.claim("U3.errors")
@pytest.mark.parametrize("words", ["ps", "ps --json", "doctor"])
def test_an_output_that_is_full_is_one_sentence_and_an_exit_code(shell, words):
    full = subprocess.run(["sh", "-c", f"{sys.executable} -m overwinter {words} >/dev/full"], cwd=shell.place, env=shell.environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr


def test_sigterm_lets_calls_in_flight_end(shell):
    server = shell.serve()
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=20)
    assert server.returncode == 0, err
    assert out.endswith("stopped\n")
    assert not (shell.place / ".overwinter" / "overwinter.sock").exists()


BAD = {
    "syntax": ("run", {"p.py": "def ("}, ["p.py"], 3, "line 1"),
    "type error": ("run", {"p.py": "await shop.double(number='a')"}, ["p.py"], 3, "Expected `int`"),
    "unsupported": ("run", {"p.py": "yield 1"}, ["p.py"], 3, "yield"),
    "missing input": ("run", {"p.py": "print(invoice_id)"}, ["p.py"], 3, "--input invoice_id=VALUE"),
    "empty name": ("show", {}, [""], 2, "a name is empty"),
    "empty person": ("answer", {}, ["x:0", "y", "--as", ""], 2, "nobody is named"),
    "empty owner": ("ps", {"overwinter.toml": "[agents.a]\nowner = ''\n"}, [], 2, "agents.a.owner is empty"),
    "long line": ("run", {"p.py": "x = '" + "y" * 300_000 + "'"}, ["p.py"], 3, "program too long"),
    "long name": ("run", {}, ["x" * 300 + ".py"], 2, "File name too long"),
    "long home": ("ps", {}, ["--home", "x" * 300], 10, "File name too long"),
    "no such file": ("run", {}, ["absent.py"], 2, "absent.py"),
    "bad input word": ("run", {"p.py": "1"}, ["p.py", "-i", "x"], 2, "NAME=VALUE"),
    "unknown agent": ("run", {"p.py": "1"}, ["p.py", "--agent", "nobody"], 4, "default"),
    "unknown run": ("show", {}, ["ZZZZZZ"], 4, "no run"),
    "short tail": ("show", {}, ["Z"], 2, "at least 4"),
    "bad question": ("answer", {}, ["x", "y"], 2, "RUN:INDEX"),
    "toml syntax": ("ps", {"overwinter.toml": "[agents]\nx = = 1"}, [], 2, "line 2"),
    "toml key": ("ps", {"overwinter.toml": "[limits]\nmemory = 3\n"}, [], 2, "line 2: limits.memory is unknown; did you mean"),
    "toml type": ("ps", {"overwinter.toml": "[worker]\nthreads = 'many'\n"}, [], 2, "line 2: worker.threads is a whole number"),
    "toml module": ("ps", {"overwinter.toml": "[services.crm]\npython = 'absent'\n"}, [], 2, "'absent' cannot be imported"),
    "toml script": ("ps", {"overwinter.toml": "[services.crm]\npython = 'ends'\n", "ends.py": "import sys\nsys.exit(3)\n"}, [], 2,
                    "behind `if __name__"),
    "toml file": ("ps", {"overwinter.toml": "[services.crm]\npython = 'crm.py'\n", "crm.py": ""}, [], 2, "named as in `import`, 'crm'"),
    "toml name": ("ps", {"overwinter.toml": "[agents.'x y']\nowner = 'o'\n"}, [], 2, "letters, digits, _ and -, not a digit first"),
    "argument": ("tools", {}, ["call", "shop.double", "number=x"], 3, "Expected `int`"),
    "no function": ("tools", {}, ["call", "shop.triple", "number=1"], 3, "has no function"),
    "no full name": ("tools", {}, ["call", "shop", "number=1"], 20, "there is no function shop"),
    "no service": ("tools", {}, ["call", "github.repos_get", "owner=a"], 4, "there is no service github"),
    "no stub": ("tools", {}, ["describe", "nope"], 4, "there is no nope"),
    "gc length": ("gc", {}, ["--older-than", "soon"], 2, "30d"),
    "cpu": ("run", {"p.py": "while True: pass"}, ["p.py"], 20, "limits.turn_cpu_s"),
    "memory": ("run", {"p.py": "x = 'a' * 10**9"}, ["p.py"], 20, "limits.memory_mb"),
    "state": ("run", {"p.py": "rows = ['x' * 99] * 1\nrows = [str(i) * 99 for i in range(20_000)]\nawait tools.receive()"},
              ["p.py"], 20, "rows"),
}  # fmt: skip


@pytest.mark.claim("U3.errors")
@pytest.mark.parametrize("name", BAD)
def test_each_bad_input_gets_one_message_and_its_exit_code(shell, name):
    command, files, rest, code, message = BAD[name]
    for file, text in files.items():
        (shell.place / file).write_text(text)
    answer = shell(command, *rest)
    assert answer.returncode == code, words(answer)
    assert message in words(answer)
    assert "Traceback" not in words(answer)


def test_ctrl_c_in_a_terminal_is_no_crash_of_the_program_that_computes(shell):
    (shell.place / "long.py").write_text("n = 0\nfor each in range(20_000_000):\n    n += each\nn")
    command = ["env", "--default-signal=INT", sys.executable, "-m", "overwinter", "run", "long.py"]
    begun = subprocess.Popen(
        command, cwd=shell.place, env=shell.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert begun.stdout is not None
    assert "created" in begun.stdout.readline()
    time.sleep(0.3)  # by now it computes, or has ended: then nothing is seen, and nothing is wrong
    os.killpg(begun.pid, signal.SIGINT)  # as a terminal does
    begun.communicate(timeout=30)
    assert begun.returncode in (23, 130)
    run = json.loads(shell("ps", "--all", "--json").stdout)["runs"][0]
    assert "stumbled" not in shell("logs", run["id"], "--json").stdout


@pytest.mark.claim("U3.errors")
def test_a_slip_in_the_path_of_a_home_makes_none(shell):
    refused = shell("ps", "--home", "absent/.overwinter")
    assert refused.returncode == 4, words(refused)
    assert "overwinter init" in refused.stderr
    (shell.place / "absent").mkdir()
    (shell.place / "absent" / "empty").mkdir()
    assert shell("ps", "--home", "absent/empty").returncode == 4
    assert not list((shell.place / "absent" / "empty").iterdir())
    assert shell("logs", "ZZZZZZ", "--home", "absent/.overwinter").returncode == 4
    assert not (shell.place / "absent" / ".overwinter").exists()
    (shell.place / "p.py").write_text("1")
    assert shell("run", "p.py", "--home", "absent/.overwinter").returncode == 0
    assert (shell.place / "absent" / ".overwinter").exists()


@pytest.mark.claim("U3.errors")
def test_an_interrupt_while_a_command_is_still_being_imported_is_no_traceback(shell):
    (shell.place / "typer.py").write_text("raise KeyboardInterrupt")
    stopped = shell("ps")
    assert (stopped.returncode, words(stopped)) == (130, "")


@pytest.mark.claim("U3.errors")
def test_a_second_process_on_a_home_is_told_who_holds_it(shell):
    server = shell.serve()
    second = shell("serve")
    assert second.returncode == 11, words(second)
    assert str(server.pid) in second.stderr


@pytest.mark.claim("U3.errors")
def test_a_lost_key_a_newer_home_and_a_damaged_one_are_named_and_left_alone(shell):
    assert shell("ps").returncode == 0
    home = shell.place / ".overwinter"
    key = (home / "keys" / "snapshot.key").read_bytes()
    (home / "keys" / "snapshot.key").unlink()
    lost = shell("ps")
    assert lost.returncode == 13, words(lost)
    assert "restore it from a backup" in lost.stderr
    (home / "keys" / "snapshot.key").write_bytes(key)
    assert "chmod 600" in shell("ps").stderr
    (home / "keys" / "snapshot.key").chmod(0o600)
    assert shell("ps").returncode == 0
    (home / "store.db").write_bytes(b"this is no database" * 1_000)
    damaged = shell("ps", "--json")
    assert damaged.returncode == 13
    assert json.loads(damaged.stdout)["error"]["exit_code"] == 13


def test_ten_megabytes_of_print_are_cut_and_said(shell):
    (shell.place / "p.py").write_text("for i in range(10_000):\n    print('x' * 1_000)\n'end'")
    ran = shell("run", "p.py", "--json")
    assert ran.returncode == 0, words(ran)
    printed = next(json.loads(line) for line in ran.stdout.splitlines() if '"printed"' in line)
    assert "bytes more were printed and dropped" in printed["body"]["text"]
    assert len(printed["body"]["text"]) < 1_100_000


def test_a_tool_that_returns_what_cannot_cross_is_an_error_of_that_call(shell):
    module = shell.place / f"{(shell.place / 'module').read_text()}.py"
    module.write_text(module.read_text() + "\n\n@read\nasync def odd() -> object:\n    return object()\n")
    (shell.place / "p.py").write_text("await shop.odd()")
    ran = shell("run", "p.py")
    assert ran.returncode == 20
    assert "the result of shop.odd cannot cross" in words(ran)


def test_a_server_that_is_gone_is_said_and_nothing_hangs(shell):
    begun = time.monotonic()
    shell.serve().kill()
    assert shell("ps").returncode == 0  # the socket file lies there; nobody answers: the command opens the home itself
    assert time.monotonic() - begun < 30
