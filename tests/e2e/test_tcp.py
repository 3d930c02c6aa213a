"""The API on TCP, with real processes: a client elsewhere, TLS, and what a token does not open."""

import json
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from shells import Shell, certified


@contextmanager
def serving(shell: Shell, *options: str) -> Generator[str]:
    server = shell.popen("serve", "--port", "0", "--json", *options)
    assert server.stdout is not None
    url = str(json.loads(server.stdout.readline())["url"])
    try:
        yield url
    finally:
        server.terminate()
        out, err = server.communicate(timeout=40)
        assert (server.returncode, "Traceback" in out + err, "ow_" in out + err) == (0, False, False), err


def token_of(shell: Shell, *scopes: str) -> str:
    made = shell("token", "create", "ana@example.com", *(f"--scope={each}" for each in scopes))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.mark.claim("I1.tls")
def test_a_client_elsewhere_runs_programs_over_tls_and_its_token_is_in_no_output(shell: Shell):
    certificate, key = certified(shell.place)
    token = token_of(shell, "read", "act")
    (shell.place / "p.py").write_text("await shop.double(number=21)")
    with serving(shell, "--tls-cert", str(certificate), "--tls-key", str(key)) as url:
        assert url.startswith("https://127.0.0.1:")
        shell.environment["THERE"] = token
        there = ("--url", url, "--token", "env:THERE")
        assert "cannot be reached" in shell(*there, "ps").stderr, "nobody vouches for it yet"
        shell.environment["SSL_CERT_FILE"] = str(certificate)
        ran = shell(*there, "run", "p.py")
        assert (ran.returncode, "42" in ran.stdout) == (0, True), ran.stderr
        (shell.place / "token").write_text(f"{token}\n")
        listed = shell("--url", url, "--token", f"file:{shell.place / 'token'}", "ps", "--all", "--json")
        assert [each["status"] for each in json.loads(listed.stdout)["runs"]] == ["finished"]
        denied = shell(*there, "revoke", "default")
        assert (denied.returncode, "'admin'" in denied.stderr) == (7, True)
        made = shell(*there, "token", "create", "boss@example.com")
        assert (made.returncode, "the home's own socket" in made.stderr) == (7, True)
        assert shell("revoke", json.loads(shell("token", "list", "--json").stdout)["tokens"][0]["id"]).returncode == 0
        refused = shell(*there, "ps")
        assert (refused.returncode, "token is needed" in refused.stderr) == (8, True)
        for answer in (ran, listed, denied, refused):
            assert token not in answer.stdout + answer.stderr


def test_what_would_show_a_token_to_a_network_is_refused(shell: Shell):
    token = token_of(shell, "read")
    for words, said in (
        (("serve", "--port", "0", "--host", "0.0.0.0"), "plain text"),
        (("serve", "--host", "0.0.0.0"), "--port"),
        (("serve", "--port", "0", "--tls-cert", "none.pem"), "together"),
        (("serve", "--port", "0", "--tls-cert", "none.pem", "--tls-key", "none.pem"), "cannot be used for TLS"),
        (("serve", "--port", "0", "--host", "192.0.2.1", "--insecure"), "cannot be had"),
        (("--url", "http://192.0.2.1:1", "--token", "file:token", "ps"), "only a home of this machine"),
        (("--url", "https://127.0.0.1:1/x", "--token", "file:token", "ps"), "no address of a home"),
        (("--url", "http://127.0.0.1:1", "--token", "file:none", "ps"), "no token to be read"),
        (("--url", "http://127.0.0.1:1", "ps"), "no API token"),
        (("--url", "http://127.0.0.1:1", "--token", token, "ps"), "seen by every user"),
    ):
        (shell.place / "token").write_text(token)
        answer = shell(*words)
        assert (answer.returncode, said in answer.stderr.replace("\n", " ")) == (2, True), (words, answer.stderr)
        assert token not in answer.stderr
    gone = shell("--url", "http://127.0.0.1:1", "--token", "file:token", "ps")
    assert (gone.returncode, "cannot be reached" in gone.stderr) == (16, True)


def test_without_a_token_nothing_but_what_is_public_is_answered_to_this_machine_either(shell: Shell):
    document = json.loads(shell("agents", "show", "default", "--document").stdout)

    def asked(url: str, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"{url}{path}", timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    with serving(shell) as url:
        status, keys = asked(url, "/.well-known/jwks.json")
        assert (status, list(keys)) == (200, ["keys"])
        assert asked(url, "/v1/health")[0] == asked(url, "/metrics")[0] == asked(url, "/")[0] == 401
        assert (asked(url, "/healthz"), asked(url, "/readyz")[0]) == ((200, {"is_up": True}), 200)
        told = jwt.decode(document["jwt"], KeySet.import_key_set(keys), algorithms=["Ed25519"])
        assert told.claims["sub"] == "agent:home/default@1"
