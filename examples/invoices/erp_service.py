"""A company's ERP as one meets it: a described API of several hundred operations, of which a program needs two.

Each kind of record can be listed, read, created, changed and deleted; what is written is kept in a database. `GET /openapi.json` describes
all of it, with the fields of each kind.

    python erp_service.py DATABASE [--port N]        # prints {"url": ...} when it listens
"""

import argparse
import json
import re
import socket
from typing import Any

import apsw
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

AREAS = {
    "accounting": (
        "accounts",
        "budgets",
        "cost centers",
        "exchange rates",
        "fiscal years",
        "journal entries",
        "payment terms",
        "tax codes",
    ),
    "assets": ("assets", "depreciations", "disposals", "insurances", "leases", "maintenance orders"),
    "crm": ("activities", "campaigns", "contacts", "customers", "leads", "opportunities", "segments", "territories"),
    "hr": (
        "absences",
        "applicants",
        "contracts",
        "employees",
        "expense claims",
        "payslips",
        "positions",
        "shifts",
        "trainings",
    ),
    "inventory": (
        "batches",
        "bins",
        "counts",
        "items",
        "serial numbers",
        "stock moves",
        "transfer orders",
        "warehouses",
    ),
    "manufacturing": ("bills of materials", "inspections", "machines", "production orders", "routings", "work centers"),
    "purchasing": ("goods receipts", "purchase orders", "quotations", "requisitions", "suppliers", "supplier invoices"),
    "receivables": ("credit notes", "disputes", "dunning notes", "payment plans", "remittances", "write-offs"),
    "sales": ("deliveries", "discounts", "price lists", "returns", "sales orders", "shipments", "subscriptions"),
    "service": ("cases", "feedback", "knowledge articles", "service contracts", "visits"),
}
FIELDS: dict[str, dict[str, Any]] = {
    "name": {"type": "string", "description": "What people call it"},
    "reference": {"type": "string", "description": "Number of the document or record that it belongs to"},
    "text": {"type": "string"},
    "amount_cents": {"type": "integer"},
    "owner": {"type": "string", "description": "Who answers for it"},
    "state": {"type": "string", "enum": ["draft", "open", "closed"]},
}


def described() -> dict[str, Any]:
    """Return the API's description, OpenAPI 3.1."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for area, kinds in AREAS.items():
        for kind in kinds:
            name = "".join(part.title() for part in (area, *kind.replace("-", " ").split()))
            stem = re.sub("[ -]", "_", f"{area}_{kind}")
            place = f"/{area}/{kind.replace(' ', '-')}"
            schemas[f"{name}Fields"] = {"type": "object", "properties": FIELDS, "required": ["reference"]}
            schemas[name] = {
                "type": "object",
                "properties": {"id": {"type": "integer"}, **FIELDS},
                "required": ["id", "reference"],
            }
            one = {"$ref": f"#/components/schemas/{name}"}
            many = {"type": "array", "items": one}
            fields = {"required": True, "content": _json({"$ref": f"#/components/schemas/{name}Fields"})}
            by_id = [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}]
            of = [{"name": "reference", "in": "query", "schema": {"type": "string"}}]
            paths[place] = {
                "get": _operation(f"{stem}_list", f"List {kind}", "200", many, parameters=of),
                "post": _operation(f"{stem}_create", f"Write down one of the {kind}", "201", one, requestBody=fields),
            }
            paths[f"{place}/{{id}}"] = {
                "get": _operation(f"{stem}_get", f"Get one of the {kind}", "200", one, parameters=by_id),
                "put": _operation(
                    f"{stem}_update", f"Change one of the {kind}", "200", one, parameters=by_id, requestBody=fields
                ),
                "delete": _operation(f"{stem}_delete", f"Delete one of the {kind}", "204", None, parameters=by_id),
            }
    info = {"title": "ERP", "version": "1", "description": "Records of a company"}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _operation(name: str, summary: str, code: str, schema: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    answer = {"description": summary, **({} if schema is None else {"content": _json(schema)})}
    return {"operationId": name, "summary": summary, "responses": {code: answer}, **more}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


class Records:
    """The records of all kinds, by the path of their kind."""

    def __init__(self, path: str) -> None:
        self.db = apsw.Connection(path)
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("create table if not exists record (id integer primary key, kind text, body text)")

    async def many(self, request: Request) -> Response:
        """List or create."""
        kind = request.url.path
        if request.method == "POST":
            body = await request.json()
            self.db.execute("insert into record (kind, body) values (?, ?)", (kind, json.dumps(body)))
            return JSONResponse({**body, "id": self.db.last_insert_rowid()}, status_code=201)
        found = [
            {**json.loads(body), "id": number}
            for number, body in self.db.execute("select id, body from record where kind = ?", (kind,))
        ]
        wanted = request.query_params.get("reference")
        return JSONResponse([each for each in found if wanted in (None, each["reference"])])

    async def one(self, request: Request) -> Response:
        """Read, change or delete."""
        place = (request.url.path.rpartition("/")[0], request.path_params["id"])
        found = list(self.db.execute("select body from record where (kind, id) = (?, ?)", place))
        if not found:
            return JSONResponse({"message": "there is no such record"}, status_code=404)
        body = json.loads(found[0][0])
        if request.method == "DELETE":
            self.db.execute("delete from record where (kind, id) = (?, ?)", place)
            return Response(status_code=204)
        if request.method == "PUT":
            body = await request.json()
            self.db.execute("update record set body = ? where (kind, id) = (?, ?)", (json.dumps(body), *place))
        return JSONResponse({**body, "id": place[1]})


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    records = Records(given.database)
    description = described()
    app = Starlette(
        routes=[
            Route("/openapi.json", lambda _: JSONResponse(description)),
            Route("/{area}/{kind}", records.many, methods=["GET", "POST"]),
            Route("/{area}/{kind}/{id:int}", records.one, methods=["GET", "PUT", "DELETE"]),
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
