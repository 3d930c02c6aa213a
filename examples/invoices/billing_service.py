"""A billing service with a mind of its own: a process, a ledger on disk, and failures that a seed decides.

`POST /charges` honours `Idempotency-Key`; `POST /transfers` does not: what is sent twice is done twice. Both may answer
402, 429 with Retry-After, 500 before or after the money moved, or nothing at all after it moved. The ledger is committed
before an answer leaves, so it is the truth whatever is killed.

    python billing_service.py LEDGER [--seed N] [--failures 0.25]     prints {"url": ...} when it listens
"""

import argparse
import asyncio
import json
import random
import socket
import time

import apsw
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

WITHHELD_S = 3.0
"""Longer than the client waits."""
KINDS = ("402", "429", "500 before", "500 after", "silence after")


class Billing:
    def __init__(self, ledger: str, seed: int, failures: float) -> None:
        self.seed, self.failures = seed, failures
        self.db = apsw.Connection(ledger)
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("pragma synchronous=full")
        self.db.execute("""
            create table if not exists request (id integer primary key, at real, path text, invoice int, key text, fate text);
            create index if not exists request_invoice on request (invoice);
            create table if not exists movement (id integer primary key, at real, invoice int, amount int, key text unique);
            create index if not exists movement_invoice on movement (invoice);""")

    def fate(self, path: str, invoice: int) -> str:
        """What happens to this request: the same for the same seed, invoice and attempt."""
        ((attempt,),) = self.db.execute("select count(*) from request where invoice = ? and path = ?", (invoice, path))
        rng = random.Random(f"{self.seed} {path} {invoice} {attempt}")
        return rng.choice(KINDS) if rng.random() < self.failures else "done"

    async def move(self, request: Request) -> JSONResponse:
        body = await request.json()
        path, invoice, amount = request.url.path, body["invoice_id"], body["amount_cents"]
        key = request.headers.get("idempotency-key") if path == "/charges" else None
        with self.db:
            fate = self.fate(path, invoice)
            done = self.movement_of(key)
            if done is not None:
                fate = "repeated"
            self.db.execute(
                "insert into request (at, path, invoice, key, fate) values (?, ?, ?, ?, ?)",
                (time.time(), path, invoice, key, fate),
            )
            if done is None and fate in ("done", "500 after", "silence after"):
                self.db.execute(
                    "insert into movement (at, invoice, amount, key) values (?, ?, ?, ?)",
                    (time.time(), invoice, amount, key),
                )
                done = {"movement": self.db.last_insert_rowid(), "amount_cents": amount}
        return await self.answer(fate, done)

    async def answer(self, fate: str, done: dict[str, int] | None) -> JSONResponse:
        match fate:
            case "402":
                return JSONResponse({"code": "card_declined", "message": "the card was declined"}, status_code=402)
            case "429":
                answer = {"code": "rate_limited", "message": "too many requests"}
                return JSONResponse(answer, status_code=429, headers={"Retry-After": "1"})
            case "500 before" | "500 after":
                return JSONResponse({"code": "internal", "message": "something broke"}, status_code=500)
            case "silence after":
                await asyncio.sleep(WITHHELD_S)
            case _:
                pass
        return JSONResponse(done)

    def movement_of(self, key: str | None) -> dict[str, int] | None:
        if key is None:
            return None
        for movement, amount in self.db.execute("select id, amount from movement where key = ?", (key,)):
            return {"movement": movement, "amount_cents": amount}
        return None

    async def movements(self, request: Request) -> JSONResponse:
        """All movements, or those of one invoice."""
        invoice = request.query_params.get("invoice_id")
        where, bound = ("where invoice = ?", (int(invoice),)) if invoice else ("", ())
        rows = self.db.execute(f"select id, invoice, amount from movement {where} order by id", bound)
        found = [{"movement": row[0], "invoice_id": row[1], "amount_cents": row[2]} for row in rows]
        return JSONResponse({"movements": found})

    async def requests(self, request: Request) -> JSONResponse:
        """How often each fate was met."""
        return JSONResponse(dict(self.db.execute("select fate, count(*) from request group by fate")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--failures", type=float, default=0.25, help="share of requests that go wrong")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    billing = Billing(given.ledger, given.seed, given.failures)
    app = Starlette(
        routes=[
            Route("/charges", billing.move, methods=["POST"]),
            Route("/transfers", billing.move, methods=["POST"]),
            Route("/movements", billing.movements),
            Route("/requests", billing.requests),
        ]
    )
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", given.port))
    print(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
