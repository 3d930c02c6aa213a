"""Logins at an MCP server as a person makes them: real processes, real HTTP, and a browser that follows a link."""

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from overwinter.adapters.mcp_servers import logins
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.config import Service
from overwinter.errors import ConfigInvalid
from shells import Shell, until

pytestmark = [pytest.mark.timeout(120)]
GATEHOUSE = Path(__file__).parent.parent / "gatehouse.py"
AGENT = '[agents.default]\nowner = "owner@example.com"\ntools = ["*"]\n'
READ, WRITE = "len((await notes.read_notes())['result'])", "await notes.write_note(text='a')"


class House:
    """The process of `gatehouse.py`."""

    def __init__(self) -> None:
        self.child = subprocess.Popen([sys.executable, GATEHOUSE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.child.stdout is not None
        said = json.loads(self.child.stdout.readline())
        self.issuer, self.server, self.other = said["issuer"], said["server"], said["other"]
        until(self.is_up)

    def is_up(self) -> bool:
        try:
            return bool(self.seen())
        except OSError:
            return False

    def odd(self, **how: Any) -> None:
        assert fetched(f"{self.issuer}/control", json.dumps(how).encode())[0] == 200

    def seen(self) -> dict[str, Any]:
        return json.loads(fetched(f"{self.issuer}/control")[2])

    def grants(self) -> list[str]:
        return [each["grant"] for each in self.seen()["log"] if "grant" in each]


def fetched(url: str, body: bytes | None = None) -> tuple[int, str, bytes]:
    """Return status, where it sends on to, and body."""
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc)) as connection:
        connection.request("GET" if body is None else "POST", f"{parts.path}?{parts.query}", body)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Location") or "", answer.read()


def sent_to(url: str) -> str:
    """Return where a person who says yes is sent to."""
    status, following, body = fetched(url)
    assert status == 307, body
    return following


def offered(command: subprocess.Popen[str]) -> str:
    """Return the address that a login asks a person to open."""
    assert command.stderr is not None
    return next(line for line in command.stderr if line.startswith("open ")).removeprefix("open ").strip()


def log_in(shell: Shell, *words: str) -> str:
    """Log in with a browser on this machine; return what the command says."""
    command = shell.popen("tools", "login", "notes", *words)
    url = offered(command)
    assert fetched(sent_to(url))[0] == 200
    out, err = command.communicate(timeout=40)
    assert command.returncode == 0, err
    return out


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.child.kill()
    made.child.communicate()


@pytest.fixture
def home(house: House, tmp_path: Path) -> Iterator[Shell]:
    declared(tmp_path, house)
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def declared(place: Path, house: House, more: str = "") -> None:
    text = f'{AGENT}[services.notes]\nmcp = "{house.server}"\nauth = "oauth"\nissuer = "{house.issuer}"\n{more}'
    (place / "overwinter.toml").write_text(text)


def run(shell: Shell, source: str, *words: str) -> subprocess.CompletedProcess[str]:
    (shell.place / "program.py").write_text(source)
    return shell("run", "program.py", "--json", *words)


def result(shell: Shell, source: str) -> Any:
    done = run(shell, source)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])["result"]


def betrayed(shell: Shell, house: House, *run_ids: str) -> list[str]:
    """Return where a token stands as it is: in files of a home, or in what is told of runs and of the audit log."""
    tokens = [each.encode() for each in house.seen()["ever"]]
    assert tokens
    told = {str(each): each.read_bytes() for each in shell.place.rglob("*") if each.is_file()}
    words = [("logs", each, "--json") for each in run_ids] + [("show", each, "--json") for each in run_ids]
    if run_ids:
        words += [("audit", "log", "--json"), ("audit", "export", "--bodies"), ("inbox", "--json")]
    for each in words:
        done = shell(*each)
        assert done.returncode == 0, done.stderr
        told[" ".join(each)] = (done.stdout + done.stderr).encode()
    return [place for place, text in told.items() if any(token in text for token in tokens)]


@pytest.mark.claim("G9.login")
def test_a_person_logs_in_calls_and_logs_out(house: House, home: Shell):
    assert "nobody has logged in" in home("tools", "list").stderr
    assert f"logged in at {house.issuer}" in log_in(home)
    assert "notes.read_notes()" in home("tools", "list", "notes").stdout
    assert result(home, READ) == 0
    house.odd(expire=True)
    assert result(home, READ) == 0
    assert house.grants() == ["authorization_code", "refresh_token"]
    assert betrayed(home, house) == []

    done = home("tools", "logout", "notes")
    assert (done.returncode, done.stderr) == (0, "")
    assert house.seen()["secrets"] == []
    assert home("secrets", "list").stdout.startswith("no secrets")
    assert home("tools", "logout", "notes").returncode != 0


@pytest.mark.claim("G9.login")
def test_a_person_without_a_browser_pastes_where_it_was_sent_to(house: House, home: Shell):
    command = subprocess.Popen(
        [sys.executable, "-m", "overwinter", "tools", "login", "notes", "--paste"],
        cwd=home.place, env=home.environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    url = offered(command)
    out, err = command.communicate(f"{sent_to(url)}\n", timeout=40)
    assert "logged in" in out, err


@pytest.mark.claim("G9.login.asked")
def test_a_write_whose_login_was_taken_back_waits_across_a_restart_and_is_made_once_after_a_new_one(
    house: House, home: Shell
):
    log_in(home)
    server = home.serve()
    assert result(home, READ) == 0
    house.odd(take_back=True)
    run_id = json.loads(run(home, f"{WRITE}\n{READ}", "--detach").stdout)["id"]
    until(lambda: "waits for a login" in home("inbox").stdout)
    asked = len(house.seen()["log"])
    server.send_signal(signal.SIGKILL)
    server.wait()
    home.serve()
    assert "overwinter tools login notes" in home("inbox").stdout
    assert len(house.seen()["log"]) == asked
    assert "1 calls that waited for it go on" in log_in(home)
    until(lambda: json.loads(home("show", run_id, "--json").stdout)["status"] != "live")
    assert json.loads(home("show", run_id, "--json").stdout)["result"] == 1
    assert betrayed(home, house, run_id) == []


@pytest.mark.claim("G9.login.asked")
def test_a_call_that_lacks_a_scope_asks_for_it_at_the_next_login_and_others_go_on(house: House, home: Shell):
    log_in(home)
    house.odd(needs="notes.admin")
    home.serve()
    run_id = json.loads(run(home, WRITE, "--detach").stdout)["id"]
    until(lambda: "more scopes" in home("inbox").stdout)
    assert result(home, READ) == 0
    log_in(home)
    until(lambda: json.loads(home("show", run_id, "--json").stdout)["status"] != "live")
    assert json.loads(home("show", run_id, "--json").stdout)["result"] == {"result": 1}
    assert [each for each in house.seen()["log"] if each.get("bearer") == "insufficient"] == [
        {"path": "/mcp", "bearer": "insufficient"}
    ]


@pytest.mark.claim("G9.login.held")
def test_the_listener_takes_nothing_but_its_own_answer_and_ends_with_the_command(house: House, home: Shell):
    command = home.popen("tools", "login", "notes")
    url = offered(command)
    back = sent_to(url)
    place = back.partition("?")[0]
    for wrong in (place, f"{place}?code=x&state=x", f"{place}x?{urlsplit(back).query}"):
        assert fetched(wrong)[0] == 404, wrong
    assert command.poll() is None
    assert fetched(back)[0] == 200
    command.communicate(timeout=40)
    assert command.returncode == 0
    with pytest.raises(OSError, match="refused"):
        fetched(place)


@pytest.mark.claim("G9.login.held")
@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"redirect": {"iss": "https://other.example"}}, "and not of"),
        ({"redirect": {"iss": None}}, "and not of"),
        ({"metadata": {"issuer": "https://other.example"}}, "another issuer"),
        ({"metadata": {"token_endpoint": "http://169.254.169.254/token"}}, "is not asked"),
        ({"metadata": {"token_endpoint": "https://10.0.0.1/token"}}, "is not asked"),
        ({"metadata": {"registration_endpoint": "http://127.0.0.1:1/register"}}, "is not asked"),
        ({"metadata": {"authorization_endpoint": "javascript:alert(1)"}}, "is not asked"),
        ({"metadata": {"authorization_endpoint": "https://a.example/\u001b]8;;x"}}, "is not asked"),
        ({"resource": {"resource": "https://other.example/mcp", "authorization_servers": []}}, "for somebody else"),
        ({"token": "huge"}, "more than"),
        ({"token": "deep"}, "no bearer token"),
        ({"token": "send_on"}, "no bearer token"),
        ({"token": "echo"}, "refused"),
        ({"token": 500}, "broken"),
        ({"no": "access_denied"}, "access_denied"),
    ],
)  # fmt: skip
@pytest.mark.anyio
async def test_a_login_that_is_not_as_the_rules_ask_keeps_nothing_and_tells_nothing(
    house: House, tmp_path: Path, odd: dict[str, Any], words: str
):
    house.odd(**odd)
    service, vault = Service(mcp=house.server, auth="oauth", issuer=house.issuer), Vault(tmp_path)
    references = References(tmp_path, vault)
    with pytest.raises(ConfigInvalid, match=words) as told:  # noqa: PT012 - the first half or the second refuses
        attempt = await logins.begin_login(service, references, "http://127.0.0.1:9/callback", vault)
        back = await anyio.to_thread.run_sync(sent_to, attempt.url)
        await logins.finish_login(attempt, back, service, references, vault, now_us=0)
    assert vault.names() == []
    assert "code-" not in str(told.value)
    assert not [each for each in house.seen()["log"] if each["path"].startswith("other")]


@pytest.mark.claim("G9.login.held")
def test_a_server_that_sends_on_elsewhere_takes_no_token_along(house: House, home: Shell):
    log_in(home)
    house.odd(send_on=f"{house.other}/mcp")
    done = run(home, WRITE)  # a read is tried five times
    assert done.returncode != 0
    assert not [each for each in house.seen()["log"] if each["path"].startswith("other")]
    assert betrayed(home, house) == []


REFRESH = """
import asyncio, sys
from pathlib import Path
from overwinter.adapters.mcp_servers.logins import access_of
from overwinter.adapters.vault import Vault
from overwinter.clock import SystemClock
from overwinter.config import load

async def main():
    place = Path(sys.argv[1])
    service = load(place / "overwinter.toml").services["notes"]
    access = access_of("notes", service, place, Vault(place / ".overwinter"), SystemClock())
    old = await access.bearer()
    print("ready", flush=True)
    sys.stdin.readline()
    print(await access.bearer(old) != old)

asyncio.run(main())
"""


@pytest.mark.claim("G9.login.once")
def test_processes_that_refresh_at_once_send_the_token_once(house: House, home: Shell):
    log_in(home)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", REFRESH, str(home.place)],
            env=home.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    for each in children:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in children:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    assert [each.communicate(timeout=40)[0] for each in children] == ["True\n"] * 4
    assert house.grants() == ["authorization_code", "refresh_token"]


@pytest.mark.claim("G9.login")
def test_a_client_that_is_the_address_of_its_metadata_document_registers_nowhere(house: House, home: Shell):
    declared(home.place, house, 'client_id = "https://client.example/overwinter.json"\n')
    log_in(home)
    assert result(home, READ) >= 0
    paths = [each.get("path", "") for each in house.seen()["log"]]
    assert not [each for each in paths if each.endswith("/register")]
    house.odd(metadata={"client_id_metadata_document_supported": False})
    refused = home("tools", "login", "notes")
    assert refused.returncode == 2
    assert "takes no client metadata documents" in refused.stderr
