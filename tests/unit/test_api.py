"""The HTTP API: what it answers to what nobody should send."""

import anyio
import pytest

from kit import asked, opened
from overwinter.faces.bodies import BODY_BYTES_MAX
from overwinter.faces.client import Client
from overwinter.faces.server import serve
from overwinter.testing import ManualClock, idle

pytestmark = pytest.mark.anyio


BAD = [
    ("POST", "/v1/runs", b"{}", b"", 400, "'source' is missing"),
    ("POST", "/v1/runs", b'{"source": 3}', b"", 400, "'source' is a str"),
    ("POST", "/v1/runs", b"[1", b"", 400, "not JSON"),
    ("POST", "/v1/runs", b"[1]", b"", 400, "JSON object"),
    ("POST", "/v1/runs", b'{"source": "1", "agnt": "reader"}', b"", 400, "did you mean 'agent'"),
    ("POST", "/v1/runs", b'{"source": "1", "dedupe": "k"}', b"", 400, "did you mean 'dedup'"),
    ("GET", "/v1/runs", b"", b"agnet=reader", 400, "did you mean 'agent'"),
    ("POST", "/v1/runs", b'{"source": "1", "name": "\\ud83d"}', b"", 400, "half a character"),
    ("POST", "/v1/runs", b'{"source": "1", "inputs": {"x": "\xed\xa0\xbd"}}', b"", 400, "half a character"),
    ("POST", "/v1/runs", '{"source": "1", "name": "a\ud800b"}'.encode("utf-16", "surrogatepass"), b"", 400, "not JSON"),
    ("POST", "/v1/runs", b"[" * 100_000, b"", 400, "not JSON"),
    ("POST", "/v1/runs", b" " * (BODY_BYTES_MAX + 1), b"", 413, "larger than 4 MB"),
    ("POST", "/v1/runs", b'{"source": "1", "inputs": {"a b": 1}}', b"", 400, "'a b' cannot be an input"),
    ("POST", "/v1/runs", b'{"source": "1", "inputs": {"class": 1}}', b"", 400, "'class' cannot be an input"),
    ("POST", "/v1/runs", b'{"source": "1", "agent": "nobody"}', b"", 404, "no agent"),
    ("POST", "/v1/runs", b'{"source": "def ("}', b"", 422, "line 1"),
    ("GET", "/v1/runs", b"", b"status=odd", 400, "no status"),
    ("GET", "/v1/runs", b"", b"limit=many", 400, "whole number"),
    ("GET", "/v1/runs", b"", b"before=zz", 400, "identifier"),
    ("GET", "/v1/runs/AAAAAAAAAAAAAAAAAAAAAAAAAU", b"", b"", 404, "no run"),
    ("GET", "/v1/runs/\x00\udcff123", b"", b"", 404, "no run"),
    ("GET", "/v1/runs/Z", b"", b"", 400, "too short"),
    ("POST", "/v1/collect", b'{"older_than_s": 1e400}', b"", 400, "length of time"),
    ("POST", "/v1/collect", b'{"older_than_s": "soon"}', b"", 400, "length of time"),
    ("POST", "/v1/questions/x/answer", b'{"answer": "yes"}', b"", 400, "RUN:INDEX"),
    ("GET", "/v1/audit", b"", b"kind=odd", 400, "no kind of entry"),
    ("GET", "/v1/audit", b"", b"order=up", 400, "neither newest nor oldest"),
    ("GET", "/v1/audit", b"", b"since_ms=soon", 400, "whole number"),
    ("GET", "/v1/audit", b"", b"limit=0", 400, "from 1 to 1000"),
    ("GET", "/v1/audit/7", b"", b"", 404, "no audit entry 7"),
    ("GET", "/v1/audit/7/proof", b"", b"", 404, "no audit entry 7"),
    ("POST", "/v1/audit/witness", b"[", b"", 400, "not JSON"),
    ("POST", "/v1/audit/witness", b"{}", b"", 400, "`url` and `key`"),
    ("POST", "/v1/audit/witness", b'{"url": "http://x", "key": "k"}', b"", 400, "is no key"),
    ("GET", "/v1/nothing", b"", b"", 404, "Not Found"),
    ("DELETE", "/v1/runs", b"", b"", 405, "Not Allowed"),
]


@pytest.mark.claim("U3.errors")
async def test_every_bad_request_gets_one_message_and_its_status(project):
    async with opened(project, clock=ManualClock()) as app:
        for method, path, body, query, status, message in BAD:
            got, answer = await asked(app, method, path, body, query)
            assert (got, message in answer["error"]["message"]) == (status, True), (path, body[:40], answer)
        run_id = await app.start("await tools.receive()")
        for wait in (b"wait_s=abc", b"wait_s=nan", b"wait_s=-1"):
            got, answer = await asked(app, "GET", f"/v1/runs/{run_id}/result", b"", wait)
            assert (got, "length of time" in answer["error"]["message"]) == (400, True)
        deep = b'{"message": ' + b"[" * 900 + b"]" * 900 + b"}"
        got, answer = await asked(app, "POST", f"/v1/runs/{run_id}/messages", deep)
        assert (got, "nested deeper" in answer["error"]["message"]) == (400, True)


async def test_a_client_over_the_socket_starts_follows_and_answers(project):
    clock = ManualClock()
    async with opened(project, clock=clock) as app, anyio.create_task_group() as group:
        stop, began = anyio.Event(), anyio.Event()
        group.start_soon(serve, app, project / ".overwinter", lambda _: began.set(), stop)
        await began.wait()
        client = Client(project / ".overwinter" / "overwinter.sock")
        call = anyio.to_thread.run_sync
        run = await call(lambda: client.post("runs", source="print('hi')\nawait tools.ask('me', 'Well?')")["id"])
        await idle(app)
        (question,) = (await call(lambda: client.get("questions")))["questions"]
        assert question["text"] == "Well?"
        await call(lambda: client.post("questions", question["question"], "answer", answer="yes", by="me"))
        events = await call(lambda: list(client.follow("runs", run, "events", since=0)))
        assert [event["position"] for event in events] == list(range(len(events)))
        rest = await call(lambda: list(client.follow("runs", run, "events", since=events[-2]["position"])))
        assert rest == events[-2:]
        assert (await call(lambda: client.get("runs", run, "result", wait_s=5)))["result"] == "yes"
        client.close()
        stop.set()
