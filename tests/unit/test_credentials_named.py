"""The credentials that a configuration names, and which of them cannot be read here."""

from overwinter.app.credentials import missing
from overwinter.config import Config, Service
from overwinter.declared import DeclaredProvider

CONFIG = Config(
    services={
        "desk": Service(openapi="desk.json", auth="env:DESK_KEY", headers={"X-Team": "env:TEAM"}),
        "plain": Service(python="shop"),
        "known": Service(openapi="known.json", auth="identity"),
    },
    providers={"far": DeclaredProvider(url="https://far.example", dialects=("chat",), auth="file:far.key")},
)


def test_each_that_cannot_be_read_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TEAM", "blue")
    monkeypatch.delenv("DESK_KEY", raising=False)
    found = missing(CONFIG, tmp_path, tmp_path)
    assert [each.partition(":")[0] for each in found] == ["services.desk.auth", "providers.far.auth"]
    assert "DESK_KEY" in found[0]
    assert missing(CONFIG, tmp_path, tmp_path, ("webhooks",)) == []


def test_those_that_can_be_read_are_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TEAM", "blue")
    monkeypatch.setenv("DESK_KEY", "k")
    (tmp_path / "far.key").write_text("secret")
    (tmp_path / "far.key").chmod(0o600)
    assert missing(CONFIG, tmp_path, tmp_path) == []
