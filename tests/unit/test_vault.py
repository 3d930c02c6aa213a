"""Where credentials come from: files of their owner's, the keyring, and the home's own vault."""

import io
import json
import stat
import sys
from pathlib import Path

import keyring
import keyring.backend
import keyring.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault, private_text
from overwinter.config import load
from overwinter.errors import ConfigInvalid, HomeDamaged, NotFound, UsageError
from overwinter.faces.cli import cli


def references(place: Path) -> References:
    return References(place, Vault(place / ".overwinter"))


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620, 0o666, 0o777])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int):
    (tmp_path / "token").write_text("abcdefgh\n")
    (tmp_path / "token").chmod(mode)
    for value in ("file:token", "x${file:token}"):
        with pytest.raises(ConfigInvalid, match=rf"here: .*token can be read by others \(mode {mode:04o}\): chmod 600"):
            references(tmp_path).whole(value, "here")
    (tmp_path / "token").chmod(0o600)
    found = references(tmp_path)
    assert (found.whole("file:token", "here"), found.secrets) == ("abcdefgh", {"abcdefgh"})
    (tmp_path / "token").chmod(0o400)
    assert private_text(tmp_path / "token") == "abcdefgh\n"


def test_what_is_hidden_in_answers_is_what_is_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "PLACE": str(tmp_path),
        "API_KEY": str(tmp_path),
        "WORD": "a-word-of-it",
        "MODE": "quiet-mode",
    }.items():
        monkeypatch.setenv(name, value)
    found = references(tmp_path)
    found.whole("env:PLACE", "here")
    found.text("${PLACE}/x ${MODE}", "here")
    assert found.secrets == set()
    found.whole("env:WORD", "here")
    found.text("${API_KEY}", "here")
    found.text("Bearer ${MODE}", "here", name="Authorization")
    assert found.secrets == {"a-word-of-it", str(tmp_path), "quiet-mode"}


class Ring(keyring.backend.KeyringBackend):
    priority = 1.0  # pyright: ignore[reportAssignmentType] - a property of classes there

    def get_password(self, service: str, username: str) -> str | None:
        if service == "locked":
            raise keyring.errors.KeyringLocked("it is locked")
        return {("a/b", "me"): "from the ring"}.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


def test_the_keyring_is_asked_and_what_it_lacks_is_said(tmp_path: Path):
    before = keyring.get_keyring()
    keyring.set_keyring(Ring())
    try:
        found = references(tmp_path)
        assert found.whole("keyring:a/b/me", "here") == "from the ring"
        assert found.secrets == {"from the ring"}
        for entry, words in {"a/b/you": "keyring set a/b you", "locked/me": "it is locked"}.items():
            with pytest.raises(ConfigInvalid, match=words):
                found.whole(f"keyring:{entry}", "here")
    finally:
        keyring.set_keyring(before)


@pytest.mark.parametrize(("module", "value"), [("keyring", "keyring:a/b"), ("pyrage", "vault:a")])
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, value: str):
    Vault(tmp_path / ".overwinter").put("a", "abcdefgh")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigInvalid, match=r"pip install 'overwinter\["):
        references(tmp_path).whole(value, "here")


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,9}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        max_size=5,
    )
)
def test_a_vault_gives_back_what_was_put_and_shows_nothing_of_it(
    tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, str]
):
    home = tmp_path_factory.mktemp("home")
    for name, secret in secrets.items():
        Vault(home).put(name, f"{secret} canary-123")
    assert Vault(home).names() == sorted(secrets)
    assert {name: Vault(home).read(name) for name in secrets} == {
        name: f"{each} canary-123" for name, each in secrets.items()
    }
    for each in (place for place in home.rglob("*") if place.is_file()):
        assert b"canary-123" not in each.read_bytes()
        assert stat.S_IMODE(each.stat().st_mode) == 0o600
    for name in secrets:
        Vault(home).remove(name)
    assert Vault(home).names() == []


def test_what_is_no_name_or_no_secret_is_refused_and_what_is_not_there_is_said(tmp_path: Path):
    vault = Vault(tmp_path / "home")
    for name, secret in (("../x", "s"), ("", "s"), ("a b", "s"), ("a", ""), ("a", "x" * (1 << 17))):
        with pytest.raises(UsageError):
            vault.put(name, secret)
    with pytest.raises(ConfigInvalid, match="overwinter secrets set a"):
        vault.read("a")
    with pytest.raises(NotFound):
        vault.remove("a")


def test_a_damaged_vault_or_a_key_that_others_read_is_refused_and_never_overwritten(tmp_path: Path):
    vault = Vault(tmp_path)
    vault.put("a", "abcdefgh")
    key, file = tmp_path / "keys" / "vault.key", tmp_path / "vault.age"
    whole, identity = file.read_bytes(), key.read_text()
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(HomeDamaged):
            vault.read("a")
    file.write_bytes(whole)
    for spoil in (lambda: key.chmod(0o644), lambda: key.write_text("no key"), key.unlink):
        key.write_text(identity)
        key.chmod(0o600)
        spoil()
        with pytest.raises(HomeDamaged):
            vault.put("b", "abcdefgh")
        assert file.read_bytes() == whole


def test_the_key_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "away").mkdir()
    monkeypatch.setenv("OVERWINTER_VAULT_KEY", str(tmp_path / "away" / "key"))
    Vault(tmp_path / "home").put("a", "abcdefgh")
    assert not (tmp_path / "home" / "keys").exists()
    assert Vault(tmp_path / "home").read("a") == "abcdefgh"


def test_commands_keep_list_and_remove_secrets_and_print_none(tmp_path: Path):
    home, said = ["--home", str(tmp_path)], io.StringIO()
    for words, given_in in (
        (["set", "token", *home], "canary-123\n"), (["set", "other", *home, "--json"], "canary-123 x"), (["list", *home], None),
        (["list", *home, "--json"], None), (["remove", "other", *home], None), (["list", *home, "--json"], None),
    ):  # fmt: skip
        ran = CliRunner().invoke(cli, ["secrets", *words], input=given_in)
        assert ran.exit_code == 0, ran.output
        said.write(ran.output)
    assert "canary" not in said.getvalue()
    assert json.loads(said.getvalue().rpartition("token is set")[2].splitlines()[-1])["secrets"] == ["token"]
    assert Vault(tmp_path).read("token") == "canary-123"
    assert CliRunner().invoke(cli, ["secrets", "remove", "other", *home]).exit_code == NotFound.exit_code
    assert CliRunner().invoke(cli, ["secrets", "set", "empty", *home], input="\n").exit_code == UsageError.exit_code


@pytest.mark.parametrize(("auth", "is_taken"), [
    ("env:A", True), ("file:a", True), ("keyring:a/b", True), ("vault:a", True), ("keyring:a", False), ("vault:", False), ("hunter2", False),
])  # fmt: skip
def test_a_credential_is_a_reference_of_one_of_four_kinds(tmp_path: Path, auth: str, *, is_taken: bool):
    (tmp_path / "overwinter.toml").write_text(
        f'[services.a]\nopenapi = "a.json"\nauth = "{auth}"\nheaders = {{ X-Token = "{auth}" }}\n'
    )
    if is_taken:
        assert load(tmp_path / "overwinter.toml").services["a"].auth == auth
        return
    with pytest.raises(ConfigInvalid, match="stays out of here"):
        load(tmp_path / "overwinter.toml")
