"""What an agent shows of itself elsewhere: nothing passes that the home's issuer did not sign, for this reader, at this moment."""

import base64
import hmac
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from kit import asked, opened
from overwinter.adapters import identity_tokens
from overwinter.adapters.identity_tokens import (
    CALL,
    DOCUMENT,
    RETIRED_MAX,
    IdentityRefused,
    Issuer,
    Kind,
    Replays,
    issuer_in,
    next_issuer,
    read,
)
from overwinter.app.auditing import Wanted
from overwinter.config import Agent, Config, Service, load
from overwinter.errors import ConfigInvalid, HomeDamaged, NotFound, Revoked
from overwinter.events import Call, Status
from overwinter.identity import Identity
from overwinter.testing import ManualClock, finish

pytestmark = pytest.mark.anyio
NOW_S = 1_900_000_000
THERE = "https://crm.example.com"
CLERK = Identity(name="clerk", owner="boss@example.com")
HELPER = Identity(name="helper", owner="ana@example.com", parent="clerk", purpose="Mail", epoch=3, models=("gpt-*",))
ISSUER = Issuer.of(b"i" * 32, "overwinter/01ARZ3NDEKTSV4RRFFQ69G5FAV")
KEYS = ISSUER.keys()
KID = KEYS["keys"][0]["kid"]
HEADER = {"alg": "Ed25519", "typ": CALL, "kid": KID}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER.name, "sub": "ana@example.com", "aud": THERE, "iat": NOW_S, "nbf": NOW_S, "exp": NOW_S + 60, "jti": "j1",
    "act": {"sub": "agent:home/helper@3"}, "call": "RUN:0",
}  # fmt: skip


def spelt(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def written(header: dict[str, Any], claims: dict[str, Any], private: Ed25519PrivateKey | None = ISSUER.private) -> str:
    """Return a token as anybody could write it who has this key."""
    signed = f"{spelt(json.dumps(header).encode())}.{spelt(json.dumps(claims).encode())}"
    return f"{signed}.{'' if private is None else spelt(private.sign(signed.encode()))}"


def taken(text: str, *, now_s: int = NOW_S) -> Any:
    return read(text, KEYS, issuer=ISSUER.name, kind=CALL, now_s=now_s, audience=THERE)


def call_token(jti: str = "j1") -> str:
    return ISSUER.call([HELPER, CLERK], key="RUN:0", audience=THERE, now_s=NOW_S, jti=jti)


def test_a_call_names_person_agents_audience_and_lives_for_a_minute():
    claims = taken(call_token())
    assert claims["act"] == {"sub": "agent:home/helper@3", "act": {"sub": "agent:home/clerk@1"}}
    assert (claims["sub"], claims["aud"], claims["exp"] - claims["iat"]) == ("ana@example.com", THERE, 60)
    assert taken(written(HEADER, CLAIMS)) == CLAIMS, "what the forgeries below start from is good"
    taken(call_token(), now_s=NOW_S + 59)
    for now_s in (NOW_S - 1, NOW_S + 60):
        with pytest.raises(IdentityRefused):
            taken(call_token(), now_s=now_s)


def test_nothing_outlives_an_authority_above_it():
    ending = Identity(name="clerk", owner="boss@example.com", expires_us=(NOW_S + 7) * 1_000_000)
    token = ISSUER.call([HELPER, ending], key="RUN:0", audience=THERE, now_s=NOW_S, jti="j")
    assert taken(token)["exp"] == NOW_S + 7
    document = ISSUER.document([HELPER, ending], rules="r", now_s=NOW_S, jti="j")
    claims = read(document, KEYS, issuer=ISSUER.name, kind=DOCUMENT, now_s=NOW_S)
    assert (claims["exp"], claims["not_after"], claims["parent"]) == (NOW_S + 7, NOW_S + 7, "agent:home/clerk@1")


def hs256() -> str:
    """Sign with the public key as if it were a shared secret: what `alg` confusion is."""
    signed = f"{spelt(json.dumps({**HEADER, 'alg': 'HS256'}).encode())}.{spelt(json.dumps(CLAIMS).encode())}"
    public = ISSUER.private.public_key().public_bytes_raw()
    return f"{signed}.{spelt(hmac.digest(public, signed.encode(), 'sha256'))}"


OTHER = Issuer.of(b"o" * 32, ISSUER.name)
FORGED = {
    "another key": written(HEADER, CLAIMS, OTHER.private),
    "another key and its name": written({**HEADER, "kid": OTHER.keys()["keys"][0]["kid"]}, CLAIMS, OTHER.private),
    "another key in the header": written({**HEADER, "jwk": OTHER.keys()["keys"][0]}, CLAIMS, OTHER.private),
    "a place of keys in the header": written({**HEADER, "jku": "https://evil.example/jwks.json"}, CLAIMS),
    "critical": written({**HEADER, "crit": ["exp"]}, CLAIMS),
    "alg none": written({**HEADER, "alg": "none"}, CLAIMS, None),
    "alg none, signed": written({**HEADER, "alg": "none"}, CLAIMS),
    "alg EdDSA": written({**HEADER, "alg": "EdDSA"}, CLAIMS),
    "alg ed25519": written({**HEADER, "alg": "ed25519"}, CLAIMS),
    "alg list": written({**HEADER, "alg": ["Ed25519"]}, CLAIMS),
    "alg HS256 with the public key": hs256(),
    "no signature": written(HEADER, CLAIMS, None),
    "no typ": written({"alg": "Ed25519", "kid": KID}, CLAIMS),
    "typ JWT": written({**HEADER, "typ": "JWT"}, CLAIMS),
    "typ of a document": written({**HEADER, "typ": DOCUMENT}, CLAIMS),
    "typ in other letters": written({**HEADER, "typ": CALL.upper()}, CLAIMS),
    "no kid": written({"alg": "Ed25519", "typ": CALL}, CLAIMS),
    "unknown kid": written({**HEADER, "kid": "x"}, CLAIMS),
    "kid of another kind": written({**HEADER, "kid": None}, CLAIMS),
    "audience elsewhere": written(HEADER, {**CLAIMS, "aud": "https://evil.example"}),
    "audience by prefix": written(HEADER, {**CLAIMS, "aud": THERE + ".evil.example"}),
    "several audiences": written(HEADER, {**CLAIMS, "aud": [THERE, "https://evil.example"]}),
    "audience list of one": written(HEADER, {**CLAIMS, "aud": [THERE]}),
    "another issuer": written(HEADER, {**CLAIMS, "iss": "overwinter/other"}),
    "expired": written(HEADER, {**CLAIMS, "iat": NOW_S - 61, "nbf": NOW_S - 61, "exp": NOW_S - 1}),
    "made in the future": written(HEADER, {**CLAIMS, "iat": NOW_S + 5}),
    "not yet": written(HEADER, {**CLAIMS, "nbf": NOW_S + 5}),
    "lives an hour": written(HEADER, {**CLAIMS, "exp": NOW_S + 3_600}),
    "ends as text": written(HEADER, {**CLAIMS, "exp": str(NOW_S + 60)}),
    "ends in part": written(HEADER, {**CLAIMS, "exp": NOW_S + 0.5}),
    "ends with true": written(HEADER, {**CLAIMS, "exp": True}),
    "jti is a number": written(HEADER, {**CLAIMS, "jti": 1}),
    **{f"without {name}": written(HEADER, {k: v for k, v in CLAIMS.items() if k != name}) for name in CLAIMS},
    **{f"empty {name}": written(HEADER, {**CLAIMS, name: None}) for name in CLAIMS},
    "a document": ISSUER.document([HELPER, CLERK], rules="r", now_s=NOW_S, jti="j"),
    "nothing": "",
    "dots": "..",
    "five parts": "a.b.c.d.e",
    "JSON": json.dumps({"payload": "", "protected": "", "signature": ""}),
    "too long": "a" * 20_000 + ".a.a",
    "deep": spelt(b"[" * 9_000) + ".a.a",
    "with padding": written(HEADER, CLAIMS) + "==",
    "with a line's end": written(HEADER, CLAIMS) + "\n",
}


@pytest.mark.claim("I2.forged")
@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_whatever_is_wrong_with_a_token_it_is_refused_and_not_repeated(text):
    with pytest.raises(IdentityRefused) as refused:
        taken(text)
    assert len(text) < 8 or text not in str(refused.value)


GOOD = call_token()


@pytest.mark.claim("I2.bytes")
@given(place=st.integers(0, len(GOOD) - 1), letter=st.characters(codec="ascii"))
def test_a_token_with_any_letter_changed_is_refused(place, letter):
    changed = GOOD[:place] + letter + GOOD[place + 1 :]
    if changed != GOOD:
        with pytest.raises(IdentityRefused):
            taken(changed)


@pytest.mark.claim("I2.bytes")
def test_a_token_with_any_bit_flipped_or_cut_anywhere_is_refused():
    for place in range(len(GOOD)):
        for bit in range(7):
            with pytest.raises(IdentityRefused):
                taken(GOOD[:place] + chr(ord(GOOD[place]) ^ 1 << bit) + GOOD[place + 1 :])
        with pytest.raises(IdentityRefused):
            taken(GOOD[:place])


def test_a_key_of_another_kind_under_the_same_name_is_not_used():
    secret = spelt(ISSUER.private.public_key().public_bytes_raw())
    for row in ({"kty": "oct", "k": secret}, {"kty": "OKP", "crv": "X25519", "x": secret}, {"kty": "OKP"}):
        with pytest.raises(IdentityRefused):
            read(GOOD, {"keys": [{**row, "kid": KID}]}, issuer=ISSUER.name, kind=CALL, now_s=NOW_S, audience=THERE)
    with pytest.raises(IdentityRefused):  # two keys of one name: which of them is meant nobody knows
        read(GOOD, {"keys": KEYS["keys"] * 2}, issuer=ISSUER.name, kind=CALL, now_s=NOW_S, audience=THERE)


def test_replays_are_known_until_they_end_and_a_full_memory_takes_none(monkeypatch):
    monkeypatch.setattr(identity_tokens, "REPLAYS_MAX", 2)
    replays = Replays()
    assert [replays.is_new(name, 60, 0) for name in ("a", "a", "b", "c")] == [True, False, True, False]
    assert replays.is_new("c", 120, 60)


def test_the_issuers_key_is_kept_and_is_nobody_elses(tmp_path):
    place = tmp_path / "keys" / "issuer.key"
    first = issuer_in(place, "overwinter/x")
    assert issuer_in(place, "overwinter/x").keys() == first.keys()
    assert place.stat().st_mode & 0o777 == 0o600
    place.chmod(0o644)
    with pytest.raises(HomeDamaged):
        issuer_in(place, "overwinter/x")


# --- Of a home ---------------------------------------------------------------------------------------------------------

AGENTS = {
    "default": Agent(owner="owner@example.com", tools=("*",)),
    "clerk": Agent(owner="boss@example.com", tools=("*",)),
    "helper": Agent(owner="ana@example.com", tools=("*",), parent="clerk", purpose="Mail"),
    "short": Agent(owner="ana@example.com", tools=("*",), expires="2030-03-17T17:47:00Z"),
}
MADE = Call(run_id="RUN", index=4, function="crm.find", arguments={}, effect="read", agent="helper")


def home(project, clock, config=None):
    return opened(project, config=config or Config(agents=AGENTS), clock=clock)


async def refused(app, text, kind: Kind = CALL, audience: str | None = THERE) -> str:
    with pytest.raises(IdentityRefused) as error:
        await app.mint.verified(text, kind=kind, audience=audience)
    return str(error.value)


@pytest.mark.claim("I2.replayed")
async def test_a_token_is_taken_once_and_only_by_whom_it_is_for(project):
    async with home(project, ManualClock()) as app:
        text = await app.mint.for_call(MADE, THERE)
        await refused(app, text, audience="https://evil.example")
        claims = await app.mint.verified(text, kind=CALL, audience=THERE)
        assert (claims["call"], claims["act"]["sub"]) == ("RUN:4", "agent:home/helper@1")
        assert "was here before" in await refused(app, text)
        other = await app.mint.for_call(MADE, THERE)
        assert (await app.mint.verified(other, kind=CALL, audience=THERE))["jti"] != claims["jti"]


@pytest.mark.claim("I2.revoked")
@pytest.mark.parametrize("stopped", ["helper", "clerk"])
async def test_a_revoked_agent_gets_no_identity_and_those_it_has_are_refused_in_every_later_epoch(project, stopped):
    async with home(project, ManualClock()) as app:
        document, token = await app.mint.document("helper"), await app.mint.for_call(MADE, THERE)
        await app.governance.revoke(stopped, by="lead")
        for _ in range(2):
            assert "revoked" in await refused(app, token)
            assert "revoked" in await refused(app, document, DOCUMENT, None)
            with pytest.raises(Revoked):
                await app.mint.document("helper")
            with pytest.raises(Revoked):
                await app.mint.for_call(MADE, THERE)
        await app.governance.restore(stopped, by="lead")
        if stopped == "clerk":
            await app.governance.restore("helper", by="lead")
        assert "stands otherwise" in await refused(app, token)
        assert "stands otherwise" in await refused(app, document, DOCUMENT, None)
        fresh = await app.mint.for_call(MADE, THERE)
        assert (await app.mint.verified(fresh, kind=CALL, audience=THERE))["act"]["sub"] == "agent:home/helper@3"


async def test_an_agent_whose_authority_has_ended_gets_no_identity(project):
    clock = ManualClock()
    async with home(project, clock) as app:
        token = await app.mint.document("short")
        claims = await app.mint.verified(token, kind=DOCUMENT)
        assert claims["exp"] == claims["not_after"] == NOW_S + 20
        clock.advance(20)
        with pytest.raises(Revoked):
            await app.mint.document("short")
        await refused(app, token, DOCUMENT, None)
        with pytest.raises(NotFound):
            await app.mint.document("nobody")


class Echo:
    """A service that keeps, and repeats, every header that it gets."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def whoami(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "")
        self.tokens.append(token.removeprefix("Bearer "))
        status = int(request.query["status"])
        return web.json_response({"message": f"you sent {token}", "headers": dict(request.headers)}, status=status)


SPEC = {
    "openapi": "3.0.3",
    "info": {"title": "CRM", "version": "1"},
    "paths": {
        "/whoami": {
            "get": {
                "operationId": "whoami",
                "parameters": [{"name": "status", "in": "query", "required": True, "schema": {"type": "integer"}}],
                "responses": {
                    "200": {"description": "", "content": {"application/json": {"schema": {"type": "object"}}}}
                },
            }
        }
    },
}


@asynccontextmanager
async def served(project: Path) -> AsyncGenerator[tuple[Echo, str, Config]]:
    echo, application = Echo(), web.Application()
    application.router.add_get("/v1/whoami", echo.whoami)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    (project / "crm.json").write_text(json.dumps(SPEC))
    crm = Service(openapi="crm.json", base_url=f"http://{host}:{port}/v1", auth="identity")
    try:
        yield echo, f"http://{host}:{port}", Config(agents=AGENTS, services={"crm": crm})
    finally:
        await runner.cleanup()


@pytest.mark.claim("I2.canary")
async def test_a_service_learns_which_agent_asks_and_its_token_is_in_no_journal_error_or_file(project, capfd):
    clock = ManualClock()
    async with served(project) as (echo, origin, config), home(project, clock, config) as app:
        fine = await finish(app, await app.start("await crm.whoami(status=200)", agent="helper"), clock)
        bad = await finish(app, await app.start("await crm.whoami(status=400)", agent="helper"), clock)
        assert (fine.status, bad.status, len(echo.tokens)) == (Status.FINISHED, Status.FAILED, 2)
        claims = await app.mint.verified(echo.tokens[0], kind=CALL, audience=origin)
        assert (claims["sub"], claims["call"]) == ("ana@example.com", f"{fine.run_id}:0")
        assert claims["act"] == {"sub": "agent:home/helper@1", "act": {"sub": "agent:home/clerk@1"}}
        told = repr([fine, bad]) + "".join([repr(each) for run in (fine, bad) async for each in app.events(run.run_id)])
        assert "[secret]" in told
        shown = "".join(capfd.readouterr())
        for token in echo.tokens:
            for part in (token, token.rpartition(".")[2]):
                assert part not in told + shown
                for place in (project / ".overwinter").rglob("*"):
                    assert not place.is_file() or part.encode() not in place.read_bytes(), place


async def test_a_call_of_an_agent_that_may_not_act_reaches_no_service(project):
    clock = ManualClock()
    async with served(project) as (echo, _, config), home(project, clock, config) as app:
        made = Call(
            run_id="RUN", index=0, function="crm.whoami", arguments={"status": 200}, effect="read", agent="helper"
        )
        await app.governance.revoke("clerk", by="lead")
        answer = await app._parts.tools.perform(made)
        assert (getattr(answer, "kind", ""), "revoked" in repr(answer)) == ("PermissionError", True)
        assert echo.tokens == []


async def test_identity_is_for_described_apis_alone(tmp_path):
    (tmp_path / "overwinter.toml").write_text("[services.s]\nmcp = 'server'\nauth = 'identity'\n")
    with pytest.raises(ConfigInvalid, match=r"line 3.*described APIs alone"):
        load(tmp_path / "overwinter.toml")


@pytest.mark.claim("I2.key.rotated")
async def test_what_the_key_before_signed_counts_for_an_hour_and_no_longer(project):
    clock = ManualClock()
    async with opened(project, config=Config(agents=AGENTS), clock=clock) as app:
        old = await app.mint.document("clerk")
        status, done = await asked(app, "POST", "/v1/issuer/rotate", b'{"reason": "it may have been copied"}')
        assert status == 200
        assert [row["kid"] for row in done["keys"]] == [row["kid"] for row in app.issuing.keys()["keys"]]
        new = await app.mint.document("clerk")
        assert identity_tokens._header(new)["kid"] == done["keys"][0]["kid"] != identity_tokens._header(old)["kid"]
        (entry,) = (await app.auditing.entries(Wanted(kind="issuer"))).entries
        _, bodies = await app.auditing.entry(entry[0])
        assert bodies["args"].value["before"] == identity_tokens._header(old)["kid"]
        clock.advance(3_590)
        for text in (old, new):
            await app.mint.verified(text, kind=DOCUMENT)
        assert app.issuing.soonest_s(3_600) == 10, "nobody is told to keep the keys for longer than they count"
    async with opened(project, config=Config(agents=AGENTS), clock=clock) as app:
        await app.mint.verified(old, kind=DOCUMENT)
        clock.advance(10)
        assert len(app.issuing.keys()["keys"]) == 1
        assert app.issuing.soonest_s(3_600) == 3_600
        await app.mint.verified(new, kind=DOCUMENT)
        with pytest.raises(IdentityRefused, match="a key that"):
            await app.mint.verified(old, kind=DOCUMENT)


def test_of_several_new_keys_within_an_hour_each_before_counts_for_its_own_time(tmp_path):
    place = tmp_path / "issuer.key"
    issuer = issuer_in(place, "overwinter/x")
    for now_s in range(0, 1_000, 100):
        issuer = next_issuer(place, issuer, now_s)
    again = issuer_in(place, "overwinter/x")
    assert again.keys(950) == issuer.keys(950)
    assert len(issuer.keys(950)["keys"]) == 1 + RETIRED_MAX
    assert len(issuer.keys(3_600 + 850)["keys"]) == 2
    place.write_bytes(b"o" * 32)  # a crash before the new key was in its place: the one that signs is listed too
    back = Issuer.of(b"o" * 32, "overwinter/x")
    crashed = issuer_in(place, "overwinter/x")
    assert crashed.keys(10_000) == back.keys()
    place.with_suffix(".retired").write_text("[{}]")
    with pytest.raises(HomeDamaged, match="delete it"):
        issuer_in(place, "overwinter/x")
