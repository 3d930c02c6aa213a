"""Canary credentials: whatever a service repeats of them, in whatever form, is nowhere in results, errors, journals and files."""

import base64
import html
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from kit import opened
from overwinter.adapters.masks import MARKER, Mask, mask_of
from overwinter.config import Agent, Config, Service, Worker
from overwinter.events import Raised, Returned
from overwinter.handles import File
from overwinter.testing import OWNER, ManualClock, finish

pytestmark = pytest.mark.anyio
CANARY = 'ca"nary/+&\\ é-0123456789'
ENCODINGS: Mapping[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "plain": (str, str),
    "json": (lambda text: json.dumps(text)[1:-1], lambda text: json.loads(f'"{text}"')),
    "json, not ascii": (
        lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
        lambda text: json.loads(f'"{text}"', strict=False),
    ),
    "json of php": (
        lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
        lambda text: json.loads(f'"{text}"'),
    ),
    "percent": (lambda text: quote(text, safe=""), unquote_plus),
    "percent of a path": (quote, unquote_plus),
    "percent of a form": (quote_plus, unquote_plus),
    "hexadecimal digits": (lambda text: text.encode().hex(), str),
    "hexadecimal digits in capitals": (lambda text: text.encode().hex().upper(), str),
    "html": (html.escape, html.unescape),
}


@pytest.mark.claim("G6.no_echo")
@pytest.mark.parametrize("name", ENCODINGS)
@given(
    secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=50),
    before=st.text("abc /=", max_size=5), after=st.text("abc /=", max_size=5),
)  # fmt: skip
def test_a_secret_is_found_in_every_encoding(name, secret, before, after):
    encode, decode = ENCODINGS[name]
    mask = mask_of([secret])
    for found in (
        mask.text(f"{before}{encode(secret)}{after}"),
        mask.raw(f"{before}{encode(secret)}{after}".encode()).decode(),
    ):
        assert found == f"{before}{MARKER}{after}"
        assert secret not in decode(found)


@pytest.mark.claim("G6.no_echo")
@given(
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
    secret=st.binary(min_size=8, max_size=60),
    is_url_safe=st.booleans(),
)
def test_a_secret_inside_base64_is_found_wherever_it_begins_and_the_rest_is_still_base64(
    before, after, secret, is_url_safe
):
    text = secret.hex()
    encode = base64.urlsafe_b64encode if is_url_safe else base64.b64encode
    written = encode(before + text.encode() + after)
    masked = mask_of([text]).raw(written)
    decoded = base64.b64decode(masked, altchars=b"-_" if is_url_safe else None, validate=True)
    assert len(decoded) == len(before + text.encode() + after)
    assert text[2:-2].encode() not in decoded


def test_what_stands_beside_a_secret_in_base64_stays_as_it_is():
    for before in (b"", b"a", b"ab", b"abc"):
        masked = mask_of(["secret-0123"]).raw(base64.b64encode(before + b"secret-0123" + b"after"))
        decoded = base64.b64decode(masked, validate=True)
        assert (decoded[: len(before)], decoded[-5:]) == (before, b"after")
        assert b"cret-012" not in decoded


def test_a_short_secret_is_not_looked_for_and_nothing_is_copied_where_there_is_none():
    assert mask_of(["1234567", "", "ok"]) == Mask()
    body, value = b"x" * 100, {"a": ["b", 1, None]}
    mask = mask_of(["12345678"])
    assert mask.raw(body) is body
    assert mask.value(value) is value
    assert mask.value({"12345678": [b"012345678", ("x12345678",)], "n": 1}) == {
        MARKER: [b"0[secret]", ["x[secret]"]],
        "n": 1,
    }


def test_a_token_is_hidden_without_its_scheme_and_a_password_without_its_user():
    pair = base64.b64encode(b"somebody:pass-word-1").decode()
    mask = mask_of([f"Basic {pair}", "Bearer token-token"])
    assert mask.text(f"{pair} pass-word-1 token-token") == f"{MARKER} {MARKER} {MARKER}"


def test_the_longest_form_is_hidden_first():
    assert mask_of(["abcdefgh", "abcdefghijkl"]).text("abcdefghijkl abcdefgh") == f"{MARKER} {MARKER}"


def test_words_of_an_answer_and_the_name_of_a_file_are_masked():
    mask = mask_of(["12345678"])
    assert mask.answer(Raised(kind="OSError", message="x12345678", code="12345678")) == Raised(
        kind="OSError", message=f"x{MARKER}", code=MARKER
    )
    file = File(body=b"", name="12345678.txt", media="a/12345678")
    made = Returned(value=file)  # pyright: ignore[reportArgumentType] - before it is kept
    assert mask.answer(made) == Returned(value=File(body=b"", name=f"{MARKER}.txt", media=f"a/{MARKER}"))  # pyright: ignore[reportArgumentType] - the same


def private(place: Path, text: str) -> None:
    place.touch(mode=0o600)
    place.write_text(text)


# --- A described API that repeats what it was sent -----------------------------------------------------------------------


def described() -> str:
    how = [{"name": "how", "in": "query", "schema": {"type": "string"}}]
    path = {
        "parameters": how,
        "responses": {"200": {"description": "", "content": {"application/json": {"schema": {}}}}},
    }
    paths = {"/echo": {"get": {"operationId": "echo", **path}, "post": {"operationId": "act", **path}}}
    blob = {
        "200": {
            "description": "",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    }
    paths["/file"] = {"get": {"operationId": "file", "parameters": how, "responses": blob}}
    scheme = {"key": {"type": "apiKey", "in": "header", "name": "X-Secret"}}
    return json.dumps({
        "openapi": "3.0.3", "info": {"title": "t", "version": "1"}, "paths": paths,
        "components": {"securitySchemes": scheme}, "security": [{"key": []}],
    })  # fmt: skip


async def echo(request: web.Request) -> web.StreamResponse:  # noqa: PLR0911 - one way of repeating a line
    secret = request.headers["X-Secret"]
    how = request.query["how"]
    forms = [encode(secret) for encode, _ in ENCODINGS.values()] + [
        base64.b64encode(b"x" * n + secret.encode()).decode() for n in range(3)
    ]
    match how:
        case "json":
            return web.json_response({"said": forms, secret: "key"})
        case "error":
            return web.json_response({"error": {"code": secret, "message": " ".join(forms)}}, status=400)
        case "html":
            return web.Response(
                text=f"<pre>{' '.join(forms)}</pre>", status=500, reason="oh no", content_type="text/html"
            )
        case "empty":
            return web.Response(status=403, reason=f"no {request.headers['X-Ascii']}")
        case "moved":
            return web.Response(
                status=302, headers={"Location": f"https://{request.headers['X-Ascii']}.example.com/{quote(secret)}"}
            )
        case "file":
            return web.Response(body=("\x00" * 9 + secret).encode(), content_type="application/octet-stream", headers={
                "Content-Disposition": f"attachment; filename={request.headers['X-Ascii']}.bin"})  # fmt: skip
        case "chunks":
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b'"' + b"x" * ((1 << 16) - 5))
            for each in json.dumps(secret)[1:-1]:
                await response.write(each.encode())
            await response.write(b'"')
            return response
        case _:
            return web.Response(text=f"{{{json.dumps(forms)}", content_type="application/json")


@pytest.mark.claim("G6.no_echo")
@pytest.mark.parametrize("how", ["json", "error", "html", "empty", "moved", "file", "chunks", "broken"])
@pytest.mark.parametrize("function", ["echo", "act", "file"])
async def test_what_a_described_api_repeats_of_its_credential_is_nowhere(project: Path, how: str, function: str):
    (project / "shop.json").write_text(described())
    private(project / "secret", CANARY)
    private(project / "ascii", "canary-0123456789")
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service = Service(
        openapi="shop.json", base_url=f"http://127.0.0.1:{runner.addresses[0][1]}", auth="file:secret",
        headers={"X-Ascii": "file:ascii"},
    )  # fmt: skip
    source = f"""
got = await api.{function}(how=how)
if isinstance(got, dict) and 'file' in got:
    got['body'] = await tools.read(got['file'])
got
"""
    try:
        seen = await everything_seen(project, source, service, how=how)
    finally:
        await runner.cleanup()
    assert "0123456789" not in seen
    assert (how, function) != ("file", "file") or "\\x00\\x00[secret]" in seen


async def everything_seen(project: Path, source: str, service: Service, **inputs: Any) -> str:
    """Return result, error, questions, journal and home of a run, in one text."""
    clock = ManualClock()
    config = Config(
        agents={"default": Agent(owner=OWNER, tools=("*",))}, worker=Worker(interpreters=1), services={"api": service}
    )
    async with opened(project, clock=clock, config=config) as app:
        run_id = await app.start(source, inputs=inputs)
        run = await finish(app, run_id, clock, answers={"unknown": "failed nobody knows"})
        events = [repr(event) async for event in app.events(run_id)]
    stored = [each.read_bytes().decode("latin-1") for each in (project / ".overwinter").rglob("*") if each.is_file()]
    assert any("answered" in event for event in events)
    return "\n".join([repr(run), *events, *stored])


# --- An MCP server that repeats what it was given ------------------------------------------------------------------------

SAYS = '''
import base64, os, sys
from mcp.server import MCPServer
from mcp_types import BlobResourceContents, EmbeddedResource, TextContent, ToolAnnotations

secret, server = os.environ["API_TOKEN"], MCPServer("says")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def say(how: str) -> list[TextContent | EmbeddedResource]:
    """Say it."""
    if how == "error":
        raise ValueError(secret)
    if how == "protocol":
        from mcp import MCPError
        raise MCPError(-32602, secret)
    if how == "died":
        os._exit(1)
    texts = [secret, base64.b64encode(b"x" + secret.encode()).decode()]
    blob = BlobResourceContents(uri="file:///a.bin", blob=base64.b64encode(b"ab" + secret.encode() + b"z" * 40).decode())
    return [*(TextContent(type="text", text=each) for each in texts), EmbeddedResource(type="resource", resource=blob)]


if len(sys.argv) > 1:
    sys.exit("no: " + secret)
server.run()
'''


@pytest.mark.claim("G6.no_echo")
@pytest.mark.parametrize("how", ["answer", "error", "protocol", "died"])
async def test_what_an_mcp_server_repeats_of_its_credential_is_nowhere(project: Path, how: str):
    (project / "says.py").write_text(SAYS)
    private(project / "secret", CANARY)
    service = Service(mcp=f"{sys.executable} says.py", env={"API_TOKEN": "file:secret"})
    source = """
got = await api.say(how=how)
[got, await tools.read(got[2]['file'])]
"""
    seen = await everything_seen(project, source, service, how=how)
    assert "0123456789" not in seen
    assert how != "answer" or (MARKER in seen and "zzzz" in seen)


async def test_the_last_words_of_a_server_that_does_not_start_are_masked(project: Path):
    (project / "says.py").write_text(SAYS)
    private(project / "secret", CANARY)
    config = Config(services={"api": Service(mcp=f"{sys.executable} says.py x", env={"API_TOKEN": "file:secret"})})
    async with opened(project, clock=ManualClock(), config=config) as app:
        (api,) = [each for each in app.sources() if each.service == "api"]
    assert "no: [secret]" in api.faults[0].what
    assert "0123456789" not in repr(api)
