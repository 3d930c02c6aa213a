"""MCP servers of other clients: the shapes their own commands write, with comments, variables and secrets."""

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from overwinter.adapters.client_configs import CLIENTS, files_of, found_in, named, table_of
from overwinter.config import load
from overwinter.errors import ConfigInvalid
from overwinter.faces.cli import cli

SECRET = "ghp_0123456789abcdefghij"
FILES: dict[tuple[str, str], str] = {
    ("claude-code", ".mcp.json"): json.dumps({"mcpServers": {
        "github": {"type": "stdio", "command": "npx", "args": ["-y", "gh mcp", "${ROOT:-/srv}/x"], "env": {"GITHUB_TOKEN": "${GH}", "LOG": "info"}},
        "docs": {"type": "http", "url": "https://docs.example.com/mcp", "headers": {"Authorization": "Bearer ${DOCS}"}},
        "feed": {"type": "ws", "url": "wss://x"},
    }}),
    ("claude-code", "HOME/.claude.json"): '{"mcpServers": {"user one": {"command": "a"}}, "projects": {"PLACE": {"mcpServers": {"local-1": {"command": "b"}}}, "/other": {"mcpServers": {"no": {"command": "c"}}}}}',
    ("claude-desktop", "HOME/.config/Claude/claude_desktop_config.json"): json.dumps({"mcpServers": {"desk": {"command": "uvx", "args": ["--api-key", "hunter2", "postgres://u:pw@h/db"], "env": {"API_KEY": SECRET}}}}),
    ("cursor", ".cursor/mcp.json"): '{\n// a comment\n"mcpServers": {"cur": {"command": "${userHome}/bin/s", "args": ["${workspaceFolder}", "--token=${env:TOK}"],},},\n}',
    ("vscode", ".vscode/mcp.json"): '{"inputs": [{"id": "my-key", "type": "promptString"}], "servers": {"coder": {"type": "stdio", "command": "s", "env": {"KEY": "${input:my-key}"}, "envFile": ".env"}}}',
    ("codex", "HOME/.codex/config.toml"): '[mcp_servers.cod]\ncommand = "c"\nargs = ["--flag"]\ncwd = "/srv"\nenv_vars = ["COD_TOKEN"]\ntool_timeout_sec = 90\n[mcp_servers.cod.env]\nA = "1"\n[mcp_servers.web]\nurl = "https://w.example.com/mcp"\nbearer_token_env_var = "WEB_TOKEN"\nenabled_tools = ["a"]\n',
    ("opencode", "HOME/.config/opencode/opencode.jsonc"): '{"mcp": {"oc": {"type": "local", "command": ["o", "serve"], "environment": {"K_TOKEN": "{env:OC}"}, "enabled": true}, "off": {"type": "local", "command": ["x"], "enabled": false}, "rem": {"type": "remote", "url": "https://r.example.com/?api_key=abc", "headers": {"X-Key": "{file:/run/key}"}}}}',
    ("gemini", "HOME/.gemini/settings.json"): json.dumps({"theme": "x", "mcpServers": {"gem": {"command": "g", "args": ["$HOME/x"], "timeout": 30000, "trust": True}, "old": {"url": "https://sse.example.com"}, "new": {"httpUrl": "https://h.example.com"}}}),
    ("copilot", "HOME/.copilot/mcp-config.json"): json.dumps({"mcpServers": {"cop": {"type": "local", "command": "p", "args": [], "tools": ["*"]}, "import": {"type": "http", "url": "https://i.example.com"}}}),
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path, monkeypatch) -> tuple[Path, Path]:
    """A project and a user's home with all of the files."""
    place, home = tmp_path / "project", tmp_path / "home"
    for (_, name), text in FILES.items():
        path = home / name.removeprefix("HOME/") if name.startswith("HOME/") else place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("PLACE", str(place)))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(place)
    return place, home


def test_every_client_s_servers_are_services_and_no_secret_is_in_the_configuration(machine):
    place, home = machine
    ran = CliRunner().invoke(cli, ["tools", "import", "--json"])
    assert ran.exit_code == 0, ran.output
    done = json.loads(ran.stdout)
    assert done["unreadable"] == []
    assert {each["name"]: each["why"] for each in done["skipped"]} == {
        "feed": "its transport is not spoken here", "off": "it is switched off there",
    }  # fmt: skip
    text = (place / "overwinter.toml").read_text()
    services: dict[str, Any] = tomllib.loads(text)["services"]
    assert {key: services[key]["mcp"] for key in services} == {
        "github": "npx -y 'gh mcp' ${ROOT:-/srv}/x",
        "docs": "https://docs.example.com/mcp",
        "user_one": "a",
        "local_1": "b",
        "desk": "uvx --api-key ${file:.overwinter/secrets/desk.1} postgres://${file:.overwinter/secrets/desk.2}@h/db",
        "cur": f"{home}/bin/s {place} --token=${{TOK}}",
        "coder": "s",
        "cod": "c --flag",
        "web": "https://w.example.com/mcp",
        "oc": "o serve",
        "rem": "https://r.example.com/?api_key=${file:.overwinter/secrets/rem.1}",
        "gem": "g ${HOME}/x",
        "old": "sse+https://sse.example.com",
        "new": "https://h.example.com",
        "cop": "p",
        "import_mcp": "https://i.example.com",
    }
    assert services["github"]["env"] == {"GITHUB_TOKEN": "env:GH", "LOG": "info"}
    assert services["docs"]["headers"] == {"Authorization": "Bearer ${DOCS}"}
    assert services["coder"]["env"] == {"KEY": "env:MY_KEY"}
    assert services["cod"]["env"] == {"A": "1", "COD_TOKEN": "env:COD_TOKEN"}
    assert (services["cod"]["cwd"], services["cod"]["timeout_s"], services["gem"]["timeout_s"]) == ("/srv", 90, 30)
    assert services["web"]["headers"] == {"Authorization": "Bearer ${WEB_TOKEN}"}
    assert services["rem"]["headers"] == {"X-Key": "${file:/run/key}"}
    assert services["desk"]["env"] == {"API_KEY": "file:.overwinter/secrets/desk.3"}
    assert SECRET not in text + ran.stdout
    assert "hunter2" not in text
    kept = sorted((place / ".overwinter" / "secrets").iterdir())
    assert [each.read_text() for each in kept] == ["hunter2", "u:pw", SECRET, "abc"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in kept} == {0o600}
    notes = {each["service"]: each["notes"] for each in done["imported"] if each["notes"]}
    assert notes["coder"] == ["`envFile` is not taken over", "set MY_KEY where overwinter starts: VS Code asks for it"]
    assert "grant functions to agents instead" in notes["web"][0]


def test_a_second_import_finds_nothing_new_and_what_stood_there_stays(machine):
    place, _ = machine
    (place / "overwinter.toml").write_text('# mine\n[services.github]\npython = "shop"\n')
    assert CliRunner().invoke(cli, ["tools", "import"]).exit_code == 0
    text = (place / "overwinter.toml").read_text()
    assert text.startswith('# mine\n[services.github]\npython = "shop"\n')
    assert "[services.github_claude_code]" in text
    again = CliRunner().invoke(cli, ["tools", "import"])
    assert "nothing new was found" in again.output
    assert (place / "overwinter.toml").read_text() == text


def test_a_dry_run_shows_it_all_and_writes_nothing(machine):
    place, _ = machine
    ran = CliRunner().invoke(cli, ["tools", "import", "--dry-run", "--client", "codex"])
    assert "[services.cod]  # from codex" in ran.stdout
    assert "nothing was written" in ran.stdout
    assert {each.name for each in place.iterdir()} == {".mcp.json", ".cursor", ".vscode"}


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_taken(machine):
    place, home = machine
    (place / ".mcp.json").write_text("{ nonsense")
    (home / ".copilot" / "mcp-config.json").write_text('{"mcpServers": {"a": 5}}')
    ran = CliRunner().invoke(cli, ["tools", "import"])
    assert ran.exit_code == 0
    assert ".mcp.json:" in ran.output
    assert "mcp-config.json: a is no server" in ran.output
    assert "[services.cod]" in (place / "overwinter.toml").read_text()


def test_a_configuration_that_is_wrong_is_left_as_it_is(machine):
    place, _ = machine
    (place / "overwinter.toml").write_text("[limits]\nmemory = 5\n")
    ran = CliRunner().invoke(cli, ["tools", "import"])
    assert ran.exit_code == ConfigInvalid.exit_code
    assert (place / "overwinter.toml").read_text() == "[limits]\nmemory = 5\n"


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_has_its_files(client, tmp_path):
    assert all(path.is_relative_to(tmp_path) for path in files_of(client, tmp_path, tmp_path, {}))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12)  # fmt: skip
SERVERS = st.dictionaries(TEXTS, st.fixed_dictionaries({}, optional={
    "command": TEXTS | st.lists(TEXTS, max_size=3), "args": st.lists(TEXTS, max_size=4) | st.none(), "url": TEXTS,
    "env": st.dictionaries(TEXTS, TEXTS, max_size=3), "headers": JSON, "cwd": TEXTS, "timeout": JSON, "type": TEXTS,
}), max_size=4)  # fmt: skip


@given(SERVERS, st.sampled_from(["claude-code", "cursor", "gemini", "copilot", "vscode"]))
def test_whatever_a_file_holds_what_is_written_is_a_configuration_without_its_secrets(
    tmp_path_factory, servers, client
):
    place = tmp_path_factory.mktemp("any")
    key = "servers" if client == "vscode" else "mcpServers"
    (place / "f.json").write_text(json.dumps({key: servers}))
    try:
        found = found_in(client, place / "f.json", place, place)
    except ConfigInvalid:
        return
    for name, entry in named(found, {}):
        text, secrets = table_of(name, entry, lambda secret: f"s/{secret}")
        (place / "overwinter.toml").write_text(text)
        (service,) = load(place / "overwinter.toml").services.values()
        assert service.mcp
        assert all(len(secret) < 4 or secret not in service.mcp for secret in secrets.values())


def test_reading_leaves_every_file_of_the_clients_as_it_was(machine):
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for root in machine for path in root.rglob("*") if path.is_file()}

    before = state()
    CliRunner().invoke(cli, ["tools", "import"])
    assert {path: text for path, text in state().items() if path in before} == before
    assert Path.cwd() == machine[0]
