"""`overwinter mcp install`: what each client's file is afterwards, what moved, and that it can all be undone."""

import json
import stat
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import json5
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from overwinter.adapters.client_backups import Change, apply, undo
from overwinter.adapters.client_edits import INSTALLED
from overwinter.config import load
from overwinter.errors import ConfigInvalid, UsageError
from overwinter.faces.cli import cli

SECRET = "ghp_0123456789abcdefghij"
FILES: dict[str, str] = {
    ".mcp.json": '{\n  // of the project\n  "mcpServers": {\n    "github": {"type": "stdio", "command": "npx", "args": ["gh"], "env": {"GITHUB_TOKEN": "SECRET"}}, // hub\n    "feed": {"type": "ws", "url": "wss://x"}\n  }\n}\n',
    "HOME/.claude.json": '{"numStartups": 3, "mcpServers": {"user one": {"command": "a"}}, "projects": {"PLACE": {"history": [], "mcpServers": {"local": {"command": "b"}}}, "/other": {"mcpServers": {"no": {"command": "c"}}}}}',
    "HOME/.cursor/mcp.json": '{\n// a comment\n"mcpServers": {"cur": {"command": "${userHome}/bin/s", "args": ["--token=${env:TOK}"],},},\n}',
    "HOME/.config/Code/User/mcp.json": '{"inputs": [{"id": "key", "type": "promptString"}], "servers": {"coder": {"type": "stdio", "command": "s", "env": {"KEY": "${input:key}"}}}}',
    "HOME/.codex/config.toml": '# mine\nmodel = "x"\n\n[mcp_servers.cod]\ncommand = "c"\n[mcp_servers.cod.env]\nA = "1"\n\n# a profile\n[profiles.p]\nmodel = "y"\n[mcp_servers.web]\nurl = "https://w.example.com/mcp"\nenabled_tools = ["a"]\n',
    "HOME/.config/opencode/opencode.jsonc": '{\n\t"mcp": {\n\t\t"oc": {"type": "local", "command": ["o", "serve"], "enabled": true},\n\t\t"off": {"type": "local", "command": ["x"], "enabled": false}\n\t}\n}\n',
    "HOME/.gemini/settings.json": '{"theme": "x", "mcpServers": {"gem": {"command": "g", "timeout": 30000}}}',
    "HOME/.copilot/mcp-config.json": '{"mcpServers": {"cop": {"type": "local", "command": "p", "args": [], "tools": ["*"]}, "hub": {"type": "local", "command": "npx", "args": ["gh"], "env": {"GITHUB_TOKEN": "OTHER"}}}}',
}  # fmt: skip
ENTRIES = {
    "claude-code": ("HOME/.claude.json", "mcpServers"),
    "codex": ("HOME/.codex/config.toml", "mcp_servers"),
    "copilot": ("HOME/.copilot/mcp-config.json", "mcpServers"),
    "opencode": ("HOME/.config/opencode/opencode.jsonc", "mcp"),
    "gemini": ("HOME/.gemini/settings.json", "mcpServers"),
    "vscode": ("HOME/.config/Code/User/mcp.json", "servers"),
    "cursor": ("HOME/.cursor/mcp.json", "mcpServers"),
}


class Machine:
    """A project and a user's home."""

    def __init__(self, tmp_path: Path) -> None:
        self.place, self.user = tmp_path / "project", tmp_path / "home"
        self.place.mkdir()
        self.user.mkdir()

    def path(self, name: str) -> Path:
        return self.user / name.removeprefix("HOME/") if name.startswith("HOME/") else self.place / name

    def write(self, name: str, text: str) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("PLACE", str(self.place)).replace("SECRET", SECRET))
        return path

    def bytes(self) -> dict[str, bytes]:
        """Return every file that is no part of the home."""
        found = [each for place in (self.place, self.user) for each in place.rglob("*") if each.is_file()]
        return {str(each): each.read_bytes() for each in found if ".overwinter" not in each.parts}

    def read(self, name: str) -> Any:
        text = self.path(name).read_text()
        return tomllib.loads(text) if name.endswith(".toml") else json5.loads(text)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("HOME", str(made.user))
    monkeypatch.chdir(made.place)
    for name in ("CODEX_HOME", "COPILOT_HOME", "OVERWINTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def machine(bare: Machine) -> Machine:
    for name, text in FILES.items():
        bare.write(name, text)
    return bare


def run(*words: str, code: int = 0, **kwargs: Any) -> Any:
    ran = CliRunner().invoke(cli, ["mcp", "install", *words], **kwargs)
    assert ran.exit_code == code, ran.output
    return json.loads(ran.stdout) if "--json" in words else ran.output


def install(*words: str, code: int = 0) -> Any:
    return run("--yes", "--no-count", "--json", *words, code=code)


def words_of(entry: dict[str, Any]) -> list[str]:
    command = entry["command"]
    return command if isinstance(command, list) else [command, *entry["args"]]


def test_each_client_gets_one_entry_with_an_agent_of_its_own(machine):
    done = install()
    assert done["refused"] == []
    config = load(machine.place / "overwinter.toml")
    for client, (name, key) in ENTRIES.items():
        entry = machine.read(name)[key]["overwinter"]
        assert words_of(entry)[-5:] == ["mcp", "--home", str(machine.place / ".overwinter"), "--agent", client]
        assert config.agents[client].tools == ()
        assert config.agents[client].asks == ("*",)
    assert "default" in config.agents
    assert machine.read("HOME/.claude.json")["mcpServers"]["overwinter"]["alwaysLoad"] is True
    codex = machine.read("HOME/.codex/config.toml")["mcp_servers"]["overwinter"]
    assert (codex["default_tools_approval_mode"], codex["startup_timeout_sec"]) == ("approve", 30)
    assert machine.read("HOME/.copilot/mcp-config.json")["mcpServers"]["overwinter"]["tools"] == ["*"]
    assert "overwinter" not in machine.read(".mcp.json")["mcpServers"]


@pytest.mark.claim("U1.installed.kept")
def test_servers_move_behind_us_and_what_would_be_another_there_stays(machine):
    done = install()
    moved = {(each["client"], each["name"]): each["service"] for each in done["moved"]}
    assert moved == {
        ("claude-code", "github"): "github", ("claude-code", "user one"): "user_one", ("claude-code", "local"): "local",
        ("codex", "cod"): "cod", ("copilot", "cop"): "cop", ("opencode", "oc"): "oc", ("gemini", "gem"): "gem", ("cursor", "cur"): "cur",
    }  # fmt: skip
    left = {each["name"]: each["why"] for each in done["left"]}
    assert left["feed"] == "its transport is not spoken here"
    assert left["off"] == "it is switched off there"
    assert "grant functions" in left["web"]
    assert "VS Code asks for it" in left["coder"]
    assert left["hub"] == "a service differs from it only in what is secret"
    assert list(machine.read(".mcp.json")["mcpServers"]) == ["feed"]
    claude = machine.read("HOME/.claude.json")
    assert list(claude["mcpServers"]) == ["overwinter"]
    assert claude["projects"][str(machine.place)] == {"history": [], "mcpServers": {}}
    assert claude["projects"]["/other"] == {"mcpServers": {"no": {"command": "c"}}}
    assert list(machine.read("HOME/.codex/config.toml")["mcp_servers"]) == ["web", "overwinter"]
    services = load(machine.place / "overwinter.toml").services
    assert set(services) == set(moved.values())
    assert services["github"].env == {"GITHUB_TOKEN": "file:.overwinter/secrets/github.1"}
    kept = machine.place / ".overwinter" / "secrets" / "github.1"
    assert (kept.read_text(), stat.S_IMODE(kept.stat().st_mode)) == (SECRET, 0o600)
    assert SECRET not in json.dumps(done)


def test_comments_stay(machine):
    install()
    assert "// of the project" in machine.path(".mcp.json").read_text()
    assert "// hub" in machine.path(".mcp.json").read_text()
    assert "// a comment" in machine.path("HOME/.cursor/mcp.json").read_text()
    codex = machine.path("HOME/.codex/config.toml").read_text()
    assert codex.startswith('# mine\nmodel = "x"\n\n\n# a profile\n[profiles.p]')


@pytest.mark.claim("U1.installed")
def test_undo_brings_back_every_byte(machine):
    before = machine.bytes()
    install()
    assert machine.bytes() != before
    done = run("--undo", "--json")
    assert {each["how"] for each in done["undone"]} == {"restored", "removed"}
    assert machine.bytes() == before
    assert not (machine.place / ".overwinter" / "secrets" / "github.1").exists()
    assert run("--undo", "--json") == {"undone": []}


@pytest.mark.claim("U1.installed")
def test_a_second_installation_changes_nothing_and_one_after_an_edit_is_undone_too(machine):
    install()
    first = machine.bytes()
    assert install()["changed"] == []
    assert machine.bytes() == first
    gemini = machine.path("HOME/.gemini/settings.json")
    settings = json.loads(gemini.read_text())
    gemini.write_text(json.dumps({**settings, "mcpServers": {**settings["mcpServers"], "new": {"command": "n"}}}))
    assert [each["name"] for each in install()["moved"]] == ["new"]
    run("--undo")
    assert machine.read("HOME/.gemini/settings.json") == {
        "theme": "x", "mcpServers": {"new": {"command": "n"}, "gem": {"command": "g", "timeout": 30000}},
    }  # fmt: skip


@pytest.mark.parametrize("name", ["HOME/.claude.json", "HOME/.codex/config.toml"])
def test_a_file_that_changed_since_is_edited_back_and_keeps_what_changed(machine, name):
    before = machine.read(name)
    install()
    path = machine.path(name)
    text = path.read_text()
    path.write_text(text.replace('"numStartups": 3', '"numStartups": 4').replace('model = "x"', 'model = "z"'))
    done = {each["path"]: each for each in run("--undo", "--json")["undone"]}
    assert done[str(path)]["how"] == "edited"
    after = machine.read(name)
    key = "mcp_servers" if name.endswith("toml") else "mcpServers"
    assert after[key] == before[key]
    assert after.get("projects") == before.get("projects")
    assert after.get("numStartups") == (4 if name == "HOME/.claude.json" else None)


def test_a_configuration_of_ours_that_changed_since_is_left_and_said(machine):
    install()
    ours = machine.place / "overwinter.toml"
    ours.write_text(ours.read_text() + "# mine\n")
    done = {each["path"]: each for each in run("--undo", "--json", code=ConfigInvalid.exit_code)["undone"]}
    assert done[str(ours)]["how"] == "left"
    assert "changed since" in done[str(ours)]["why"]
    assert ours.read_text().endswith("# mine\n")


def test_a_dry_run_shows_it_all_without_secrets_and_changes_nothing(machine):
    before = machine.bytes()
    said = run("--dry-run")
    assert "+[services.github]  # from claude-code" in said
    assert "nothing was changed" in said
    assert SECRET not in said
    assert machine.bytes() == before
    assert not (machine.place / ".overwinter").exists()


def test_without_a_terminal_nobody_is_asked_and_nothing_is_changed(machine):
    before = machine.bytes()
    assert "say --yes" in run(code=UsageError.exit_code)
    assert machine.bytes() == before


def test_an_unknown_client_is_refused_by_name(bare):
    said = run("--client", "zed", code=UsageError.exit_code)
    assert "'zed'" in said
    assert ", ".join(INSTALLED) in said


def test_a_machine_without_clients_is_left_alone(bare):
    assert set(install()["absent"]) == set(INSTALLED)
    assert bare.bytes() == {}


@pytest.mark.parametrize("client", INSTALLED)
def test_a_client_without_a_file_gets_one_that_its_owner_alone_reads(bare, client):
    name, key = ENTRIES[client]
    directory = bare.user / ".claude" if client == "claude-code" else bare.path(name).parent
    directory.mkdir(parents=True, exist_ok=True)
    install("--client", client)
    assert list(bare.read(name)[key]) == ["overwinter"]
    assert stat.S_IMODE(bare.path(name).stat().st_mode) == 0o600
    run("--undo")
    assert bare.bytes() == {}


def test_a_client_asks_whom_the_default_agent_asks(bare):
    bare.path("HOME/.gemini").mkdir()
    bare.write("overwinter.toml", '[agents.default]\nowner = "O\'Neil \\"x\\" <o@example.com>"\n')
    install("--client", "gemini")
    agents = load(bare.path("overwinter.toml")).agents
    assert agents["gemini"].owner == agents["default"].owner == 'O\'Neil "x" <o@example.com>'


def test_modes_are_kept_and_links_are_followed(machine):
    real = machine.path("HOME/.gemini/settings.json")
    kept = machine.user / "dotfiles.json"
    real.rename(kept)
    kept.chmod(0o640)
    real.symlink_to(kept)
    install("--client", "gemini")
    assert real.is_symlink()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert "overwinter" in json.loads(kept.read_text())["mcpServers"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("HOME/.gemini/settings.json", '{\n"mcpServers": {\n', "settings.json:"),
        ("HOME/.gemini/settings.json", '{\n"mcpServers": {\n"a": 5}}', "a is no server"),
        ("HOME/.gemini/settings.json", "{\nmcpServers: {}}", "line 2: a key in double quotes"),
        ("HOME/.codex/config.toml", 'x = 1\n[mcp_servers]\ncod = { command = "c" }\n', "line 3: mcp_servers.cod is not written as a table"),
        ("HOME/.gemini/settings.json", '{"mcpServers": {"overwinter": {"command": "x"}}}', "another server is called 'overwinter'"),
    ],
)  # fmt: skip
def test_a_shape_that_is_not_known_is_refused_with_its_place_and_the_others_are_installed(machine, name, text, said):
    path = machine.write(name, text)
    before = path.read_bytes()
    done = install(code=ConfigInvalid.exit_code)
    assert len(done["refused"]) == 1
    assert said in done["refused"][0]["why"]
    assert path.read_bytes() == before
    assert "overwinter" in machine.read("HOME/.cursor/mcp.json")["mcpServers"]


def test_a_configuration_of_ours_that_is_wrong_stops_it_before_any_file_changes(machine):
    (machine.place / "overwinter.toml").write_text("[limits]\nmemory = 5\n")
    before = machine.bytes()
    install(code=ConfigInvalid.exit_code)
    assert machine.bytes() == before


def test_the_count_is_of_what_the_servers_list_and_says_which_cannot_be_listed(bare):
    server = bare.write("server.py", "from mcp.server import MCPServer\ns = MCPServer('n')\n@s.tool()\ndef add(a: int) -> int:\n    '''Add.'''\n    return a\ns.run()\n")  # fmt: skip
    servers = {"one": {"command": sys.executable, "args": [str(server)]}, "gone": {"command": "/no/such/command"}}
    bare.write("HOME/.cursor/mcp.json", json.dumps({"mcpServers": servers}))
    counts = run("--yes", "--json")["counts"]
    assert counts["one"]["tools"] == 1
    assert 50 < counts["one"]["bytes"] < 400
    assert "/no/such/command" in counts["gone"]["why"]


texts = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.mark.claim("U1.installed")
@given(st.lists(st.tuples(st.none() | texts, texts), min_size=1, max_size=3), st.integers(1, 3), st.booleans())
def test_whatever_was_installed_however_often_undo_brings_back_every_byte(files, times, dries):
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        before = {place / f"{number}.json": text for number, (text, _) in enumerate(files)}
        for path, text in before.items():
            if text is not None:
                path.write_bytes(text.encode())
        for time in range(times):
            changes = [
                Change(path=path, before=read(path), after=f"{after}{time}")
                for path, (_, after) in zip(before, files, strict=True)
            ]
            apply(place / "home", changes)
        if dries:
            undo(place / "home", is_dry=True)
        undo(place / "home")
        assert {path: read(path) for path in before} == before
        assert undo(place / "home") == []


def read(path: Path) -> str | None:
    return path.read_bytes().decode() if path.exists() else None


@pytest.mark.parametrize("name", ["HOME/.gemini/settings.json", "HOME/.codex/config.toml"])
def test_a_mark_of_order_and_ends_of_lines_are_no_hindrance(machine, name):
    path = machine.path(name)
    before = b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(before)
    assert install()["refused"] == []
    after = path.read_bytes()
    assert after.startswith(b"\xef\xbb\xbf")
    assert after.count(b"\n") == after.count(b"\r\n") or b"\r" not in before
    run("--undo")
    assert path.read_bytes() == before


@pytest.mark.parametrize("client", INSTALLED)
def test_in_the_user_s_own_directory_the_entry_goes_where_every_project_finds_it(bare, client, monkeypatch):
    monkeypatch.chdir(bare.user)
    name, key = ENTRIES[client]
    for each in (".claude", ".vscode", ".config/opencode", ".agents"):
        (bare.user / each).mkdir(parents=True)
    bare.path(name).parent.mkdir(parents=True, exist_ok=True)
    install("--client", client, "--home", str(bare.user / ".overwinter"))
    assert "overwinter" in bare.read(name)[key]
    assert set(bare.bytes()) == {str(bare.path(name)), str(bare.user / "overwinter.toml")}


def test_a_file_that_changed_since_it_was_looked_at_is_not_written_and_those_before_it_can_be_undone(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text("{}")
    second.write_text('{"mine": 1}')
    changes = [
        Change(path=first, before="{}", after='{"x": 1}'),
        Change(path=second, before="{}", after='{"overwinter": 1}', put=("overwinter",)),
    ]
    with pytest.raises(ConfigInvalid, match="changed while it was looked at"):
        apply(tmp_path / "home", changes)
    assert (read(first), read(second)) == ('{"x": 1}', '{"mine": 1}')
    undo(tmp_path / "home")
    assert (read(first), read(second)) == ("{}", '{"mine": 1}')
