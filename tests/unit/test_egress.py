"""What may leave: spellings of addresses, names that change, redirects, and credentials that go nowhere else."""

import ipaddress
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from overwinter.adapters.egress import Endpoint, Forbidden, endpoint, judged, session, transport, without_userinfo
from overwinter.adapters.openapi.apis import _fetched
from overwinter.adapters.openapi.client import Connection, open_client
from overwinter.config import Agent, Config, Service, Worker
from overwinter.errors import ConfigInvalid
from overwinter.events import Call, Raised, Returned
from overwinter.testing import OWNER, ManualClock, finish, open_test_app

pytestmark = pytest.mark.anyio

PUBLIC = [
    "93.184.215.14",
    "8.8.8.8",
    "2606:4700::6810:84e5",
    "2001:4860:4860::8888",
    "64:ff9b::808:808",
    "2002:808:808::1",
]
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.0.1",
    "100.64.0.1", "198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.7", "192.0.0.8", "192.88.99.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "fd12::1", "fec0::1", "2001:db8::1", "3fff::1", "5f00::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "64:ff9b:1::7f00:1", "64:ff9b:1::808:808", "2002:7f00:1::1", "2002:a00:1::", "2001:0:7f00:1::1",
    "2001:0:808:808:0:0:80ff:fffe", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1",
]  # fmt: skip
NEVER = [
    "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::a9fe:a9fe", "fe80::a9fe:a9fe", "224.0.0.1", "ff02::1",
    "::ffff:168.63.129.16", "2606:4700::5efe:a83f:8110", "::ffff:224.0.0.1",
]  # fmt: skip
SPELLINGS = [
    "127.1", "127.0.1", "0", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "2130706433", "0x7f.0x0.0x0.0x1",
    "127.0.0.1.", "00000000177.0.0.1", "169.254.43518", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "127\u30020\u30020\u30021", "\uff11\uff12\uff17.0.0.1", "\u24dbocalhost", "LOCALHOST\u3002", "127%2e0%2e0%2e1", "%31%32%37.0.0.1", "[::1%25lo]", "[::1%lo]",
    "[127.0.0.1]", "[::ffff:127.0.0.1", "::1", "[v1.x]", "4294967297", "1.1.1.1.1.1", "0x", "a_b", "a,b", "a;b", "a b",
    "x\r\nX-Evil: 1", "x\ty", "x\x00y", "loc\u00adalhost", "localhost\u200b", "",
]  # fmt: skip
TRICKS = [
    "https://user@example.com/", "https://user:pass@example.com/", "https://example.com@127.0.0.1/", "https://@127.0.0.1/",
    "https://example.com\\@127.0.0.1/", "https://127.0.0.1\\.example.com/", "https:\\\\example.com/", "https://a@b@127.0.0.1/",
    "https://example.com /", " https://example.com/", "https://example.com/\r\nHost: evil", "https://example.com/\x00",
    "https://exa\tmple.com/", "https://exam\nple.com/", "https://example.com:0/", "https://example.com:99999/",
    "https://example.com:8o/", "https:///path", "https:example.com", "//example.com/", "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_INFO", "ftp://example.com/", "data:,x", "unix:///run/x.sock", "http+unix://x/", "example.com", "",
    "http://example.com/", "https://example.com:127.0.0.1/", "https://[::1]evil.com/", "https://[::1]@example.com/",
]  # fmt: skip


def resolving(*answers: Sequence[str]) -> Any:
    """Return a resolver that gives one answer after the other, and the last one for ever; it notes who asks."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        resolve.asked.append(host)  # pyright: ignore[reportFunctionMemberAccess]
        return left.pop(0) if len(left) > 1 else left[0]

    resolve.asked = []  # pyright: ignore[reportFunctionMemberAccess]
    return resolve


@asynccontextmanager
async def serving(answer: Any) -> AsyncGenerator[int]:
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


# --- Addresses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", PUBLIC)
async def test_a_public_address_is_asked(address):
    assert endpoint(f"https://{bracketed(address)}/", is_named=False).port == 443
    assert await judged("name", 443, resolving([address]), is_named=False) == [address]


@pytest.mark.claim("G9.egress")
@pytest.mark.parametrize("address", PRIVATE)
async def test_an_address_that_is_not_public_is_asked_only_if_the_operator_wrote_it_down(address):
    with pytest.raises(Forbidden, match="not a public address"):
        endpoint(f"https://{bracketed(address)}/", is_named=False)
    with pytest.raises(Forbidden, match="not a public address"):
        await judged("name", 443, resolving([address]), is_named=False)
    endpoint(f"http://{bracketed(address)}/", is_named=True)
    assert await judged("name", 443, resolving([address]), is_named=True) == [address]


@pytest.mark.parametrize("address", NEVER)
async def test_metadata_of_a_cloud_is_never_asked_whoever_wrote_it_down(address):
    for is_named in (False, True):
        with pytest.raises(Forbidden):
            endpoint(f"https://{bracketed(address)}/", is_named=is_named)
        with pytest.raises(Forbidden):
            await judged("name", 443, resolving([address]), is_named=is_named)


@pytest.mark.claim("G9.egress")
@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("is_named", [False, True])
async def test_no_spelling_of_an_address_gets_by(host, is_named):
    async def asked() -> None:
        there = endpoint(f"https://{host}/", is_named=is_named)
        await judged(there.host, there.port, resolving(["127.0.0.1"]), is_named=False)

    with pytest.raises(Forbidden):
        await asked()


@pytest.mark.parametrize("url", TRICKS)
def test_an_address_that_readers_read_differently_is_refused(url):
    with pytest.raises(Forbidden):
        endpoint(url, is_named=False)


@given(st.integers(0, 2**32 - 1))
def test_an_address_of_ipv4_is_judged_alike_in_all_its_disguises(number):
    plain = ipaddress.IPv4Address(number)
    disguises = [
        f"::ffff:{plain}", f"::{plain}", f"::ffff:0:{plain}", f"64:ff9b::{plain}",
        str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80))),
    ]  # fmt: skip

    def is_open(address: str) -> bool:
        try:
            endpoint(f"https://{bracketed(address)}/", is_named=False)
        except Forbidden:
            return False
        return True

    assert {is_open(each) for each in disguises} == {is_open(str(plain))}


@given(st.text(max_size=40))
def test_what_is_written_as_a_host_is_refused_or_read_as_one(text):
    try:
        there = endpoint(f"https://{text}", is_named=False)
    except Forbidden:
        return
    assert there.host
    assert not set(there.host) - set("abcdefghijklmnopqrstuvwxyz0123456789.-:")
    assert endpoint(f"{there.origin}{there.path}", is_named=False) == there


def test_a_user_in_an_address_of_the_operator_becomes_a_header():
    assert without_userinfo("https://me:p%40ss@example.com:8/x?y=1") == (
        "https://example.com:8/x?y=1",
        {"Authorization": "Basic bWU6cEBzcw=="},
    )
    assert without_userinfo("https://example.com/x@y") == ("https://example.com/x@y", {})


# --- Names, and both clients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_bad_address_among_several_closes_the_name(place):
    found = ["93.184.215.14", "8.8.8.8"]
    found.insert(place, "10.0.0.1")
    with pytest.raises(Forbidden):
        await judged("name", 443, resolving(found), is_named=False)


async def test_a_name_with_no_address_or_a_thousand_is_not_asked():
    for found in ([], ["8.8.8.8"] * 1_000):
        with pytest.raises(OSError, match="addresses"):
            await judged("name", 443, resolving(found), is_named=False)


@pytest.mark.claim("G9.egress")
async def test_a_connection_goes_to_the_address_that_was_judged_and_the_name_is_not_looked_up_again(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Host"])

    async with serving(answer) as port:
        url = f"http://rebinding.invalid:{port}/"
        resolve = resolving(["127.0.0.1"], ["192.0.2.1"])
        async with session(is_named=True, resolve=resolve) as client, client.get(url) as response:
            assert await response.text() == f"rebinding.invalid:{port}"
        assert resolve.asked == ["rebinding.invalid"]
        resolve = resolving(["127.0.0.1"], ["192.0.2.1"])
        wire = transport(endpoint(url, is_named=True), {}, resolve)
        async with httpx2.AsyncClient(transport=wire) as client:
            assert (await client.get(url)).text == f"rebinding.invalid:{port}"
            assert (await client.get(url)).text == f"rebinding.invalid:{port}"  # the same connection
        assert resolve.asked == ["rebinding.invalid"]


async def test_a_name_that_moves_to_this_machine_is_refused_at_its_next_connection():
    async def answer(_: web.Request) -> web.Response:
        raise AssertionError("nobody gets here")

    async with serving(answer) as port:
        url = f"https://rebinding.invalid:{port}/"
        resolve = resolving(["127.0.0.1"])
        async with session(is_named=False, resolve=resolve) as client:
            with pytest.raises(Forbidden):
                await client.get(url)
        async with httpx2.AsyncClient(transport=transport(endpoint(url, is_named=False), {}, resolve)) as client:
            with pytest.raises(Forbidden):
                await client.get(url)


async def test_a_server_whose_first_address_is_dead_is_reached_at_the_next():
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="here")

    async with serving(answer) as port:
        url = f"http://two.invalid:{port}/"
        wire = transport(endpoint(url, is_named=True), {}, resolving(["127.0.0.9", "127.0.0.1"]))
        async with httpx2.AsyncClient(transport=wire) as client:
            assert (await client.get(url)).text == "here"


async def test_the_headers_of_a_connection_go_to_its_endpoint_alone():
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("X-Secret", ""))
        return web.Response(status=307, headers={"Location": request.query["to"]})

    async with serving(answer) as port:
        here = f"http://127.0.0.1:{port}/mcp"
        wire = transport(endpoint(here, is_named=True), {"X-Secret": "canary"})
        async with httpx2.AsyncClient(transport=wire, follow_redirects=True) as client:
            for to in ("/", "/mcpx", "/mcp/../x", f"http://127.0.0.2:{port}/mcp", f"https://127.0.0.1:{port}/mcp"):
                with pytest.raises(Forbidden):
                    await client.get(here, params={"to": to})
    assert seen == ["canary"] * 5


async def test_a_description_is_fetched_from_where_it_is_sent_on_to_only_if_that_is_public():
    async def answer(request: web.Request) -> web.Response:
        if "to" in request.query:
            return web.Response(status=302, headers={"Location": request.query["to"]})
        return web.Response(text="{}")

    async with serving(answer) as port:
        here = f"http://127.0.0.1:{port}"
        assert await _fetched(f"{here}/a?to=/b%3Fto%3D/c") == b"{}"
        for to in (
            f"http://127.0.0.2:{port}/x",
            "https://169.254.169.254/x",
            "https://10.0.0.1/x",
            "http://example.com/",
            "file:///x",
        ):
            with pytest.raises(ConfigInvalid):
                await _fetched(f"{here}/a?to={to}")
        with pytest.raises(ConfigInvalid, match="more than 5 times"):
            await _fetched(
                f"{here}/a?to=a%3Fto%3Da%253Fto%253Da%25253Fto%25253Da%2525253Fto%2525253Da%252525253Fto%252525253Da",
            )


async def test_an_mcp_server_at_the_metadata_of_a_cloud_is_not_asked(tmp_path):
    for place in (
        "http://169.254.169.254/mcp",
        "sse+http://[fd00:ec2::254]/sse",
        "https://x y/",
        "http://2852039166/mcp",
    ):
        config = Config(services={"it": Service(mcp=place)}, worker=Worker(interpreters=1))
        home = tmp_path / "home"
        async with open_test_app(home, {}, directory=tmp_path, clock=ManualClock(), config=config) as app:
            (it,) = [each for each in app.sources() if each.service == "it"]
            assert "it does not start: Forbidden" in it.faults[0].what


OVER_HTTP = """
import sys
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
server = MCPServer("web")

@server.tool()
def header(name: str, ctx: Context) -> str:
    return str(ctx.headers.get(name)) if ctx.headers else ""

server.run(sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]))
"""


@contextmanager
def serving_mcp(kind: str) -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", OVER_HTTP, kind, str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as served:
        try:
            assert served.stderr is not None
            assert any("running on" in line for line in served.stderr)
            yield port
        finally:
            served.kill()


@pytest.mark.parametrize(
    ("kind", "place"),
    [("streamable-http", "http://u:pass-word@127.0.0.1:{}/mcp"), ("sse", "sse+http://u:pass-word@127.0.0.1:{}/sse")],
)
async def test_an_mcp_server_over_either_transport_gets_its_headers_and_its_echo_of_them_is_masked(
    tmp_path, kind, place
):
    clock = ManualClock()
    with serving_mcp(kind) as port:
        config = Config(
            agents={"default": Agent(owner=OWNER, tools=("*",))}, worker=Worker(interpreters=1),
            services={"web": Service(mcp=place.format(port))},
        )  # fmt: skip
        async with open_test_app(tmp_path / "home", {}, directory=tmp_path, clock=clock, config=config) as app:
            run = await finish(app, await app.start("await web.header(name='authorization')"), clock)
    assert run.result == {"result": "[secret]"}, run.result


# --- Calls of a described API --------------------------------------------------------------------------------------------

READ = {"verb": "GET", "path": "/x", "arguments": [["to", "to", "query", "", None, False]], "answer": "json"}


async def performed(connection: Connection, resolve: Any, **arguments: Any) -> Any:
    call = Call(run_id="r", index=0, function="a.b", arguments=arguments, effect="read")
    async with open_client(ManualClock(), bytes_max=1 << 20, resolve=resolve) as client:
        return await client.perform(call, READ, connection, timeout_s=5)


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.1:{port}/v2/x", "http://127.0.0.2:{port}/v1/x", "http://localhost:{port}/v1/x", "/v1/../x", "/v1/%2e%2e/x",
        "/v1/..%2fx", "/v1/..;/x", "/v1/%252e%252e/x", "/v10/x", "//169.254.169.254/v1/x", "http://169.254.169.254/v1/x",
        "http://user@127.0.0.1:{port}/v1/x", "http://127.0.0.1:{port}\\@example.com/v1/x", "https://127.0.0.1:{port}/v1/x",
        "file:///etc/passwd", "http://[::ffff:127.0.0.1]:{port}/v1/x", "http://2130706433:{port}/v1/x",
    ],
)  # fmt: skip
async def test_a_redirect_leads_nowhere_but_below_the_service(to):
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.path_qs)
        return web.Response(status=302, headers={"Location": request.query["to"]})

    async with serving(answer) as port:
        connection = Connection(base_url=f"http://127.0.0.1:{port}/v1", headers={"X-Secret": "canary-1"}, is_named=True)
        got = await performed(connection, resolving(["127.0.0.1"]), to=to.format(port=port))
    assert isinstance(got, Raised)
    assert got.kind == "PermissionError"
    assert len(seen) == 1
    assert "canary" not in got.message


async def test_a_service_whose_name_leads_to_a_private_network_is_refused_and_never_asked():
    async def answer(_: web.Request) -> web.Response:
        raise AssertionError("nobody gets here")

    async with serving(answer) as port:
        connection = Connection(base_url=f"https://api.example.com:{port}", headers={})
        for found in (["127.0.0.1"], ["93.184.215.14", "127.0.0.1"], ["::ffff:127.0.0.1"]):
            got = await performed(connection, resolving(found), to="x")
            assert (got.kind, got.code) == ("PermissionError", "address"), got
            assert "base_url" in got.message


async def test_an_answer_of_a_named_service_comes_from_the_address_that_was_judged():
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(request.headers["X-Secret"][:3])

    async with serving(answer) as port:
        connection = Connection(base_url=f"http://shop.internal:{port}", headers={"X-Secret": "abcdef"}, is_named=True)
        got = await performed(connection, resolving(["127.0.0.1"], ["192.0.2.1"]), to="x")
    assert got == Returned(value="abc")


HOSTS = st.sampled_from(
    ["api.example.com", "api.example.com.", "example.com", "evil.com", "api.example.com.evil.com", "10.0.0.1"]
)
STEPS = st.sampled_from(
    ["v1", "v1x", "v2", "..", ".", "%2e%2e", "..;x", "%2f", "..%2f", "a", "", "..%5c", "%252e%252e", "@", "v1@x"]
)


@pytest.mark.claim("G9.credentials")
@given(
    scheme=st.sampled_from(["https", "http", "HTTPS", "ftp"]), host=HOSTS, port=st.sampled_from(["", ":443", ":80", ":8443"]),
    steps=st.lists(STEPS, max_size=6),
)  # fmt: skip
@example(scheme="https", host="api.example.com", port=":443", steps=["v1", "a"])
@example(scheme="https", host="api.example.com", port="", steps=["v1", "..", "a"])
def test_a_credential_goes_to_its_scheme_host_port_and_path_and_nowhere_else(scheme, host, port, steps):
    connection = Connection(base_url="https://api.example.com/v1", headers={"X-Secret": "canary"})
    path = "/" + "/".join(steps)
    try:
        carried = connection.credentials(f"{scheme}://{host}{port}{path}")
    except Forbidden:
        carried = {}
    is_below = steps[:1] == ["v1"] and not any(
        "..%" in quote(each) or each in {".", "..", "%2e%2e", "..;x", "%252e%252e"} for each in steps
    )
    is_here = scheme.lower() == "https" and host == "api.example.com" and port in {"", ":443"} and is_below
    assert bool(carried) is is_here


@given(st.text(max_size=60))
def test_no_text_takes_a_credential_elsewhere(text):
    connection = Connection(base_url="https://api.example.com/v1", headers={"X-Secret": "canary"})
    for url in (text, f"https://{text}", f"https://api.example.com{text}", f"https://api.example.com/v1{text}"):
        try:
            connection.credentials(url)
        except Forbidden:
            continue
        there = endpoint(url, is_named=False)
        assert (there.scheme, there.host, there.port) == ("https", "api.example.com", 443)
        assert there.path == "/v1" or there.path.startswith("/v1/")


def test_an_endpoint_covers_itself_and_what_is_below_it():
    here = Endpoint(scheme="https", host="h", port=443, path="/a/")
    for path, is_covered in {"/a": True, "/a/": True, "/a/b": True, "/ab": False, "/": False, "/a/../b": False}.items():
        assert here.covers(Endpoint(scheme="https", host="h", port=443, path=path)) is is_covered
    assert Endpoint(scheme="https", host="h", port=443).covers(here)


def test_the_resolver_of_this_machine_does_take_numbers_for_addresses():
    """Without this the spellings above would prove nothing: it is why the address is judged and not the text."""
    for text in ("127.1", "0x7f.1", "2130706433", "0177.0.0.1"):
        assert socket.getaddrinfo(text, 80, type=socket.SOCK_STREAM)[0][4][0] == "127.0.0.1"
