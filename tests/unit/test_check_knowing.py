"""What a program asks about, puts somewhere or says of its own names is no mistake: programs as models write them."""

import pytest

from check_cases import verdicts
from overwinter.check import Cell, Transcript
from overwinter.subset import lacks

pytestmark = pytest.mark.anyio
STUB = """\
from typing import Any, Literal, NotRequired, TypedDict
from datetime import date, datetime
from decimal import Decimal
class Address(TypedDict):
    city: str
class Customer(TypedDict):
    id: str
    name: str
    address: Address | None
    notes: NotRequired[str]
class Order(TypedDict):
    id: str
    customer_id: str
    due: date | None
    placed: datetime
    total: float
    status: Literal["open", "closed", "paid"]
class Job(TypedDict):
    state: Literal["queued", "done", "failed"]
    result: dict[str, Any] | None
    error: str | None
async def orders(*, status: Literal["open", "closed", "paid"] | None = ..., limit: int | None = ...) -> list[Order]: ...
async def near(*, at: tuple[float, float], tags: set[str] = ...) -> None: ...
async def label(*, labels: list[str] = ..., to: str | list[str] = ...) -> None: ...
async def customer(*, id: str) -> Customer: ...
async def find_customer(*, email: str) -> Customer | None: ...
async def customers(*, tier: Literal["gold", "free"] | None = ...) -> list[Customer]: ...
async def job(*, id: int) -> Job: ...
async def send_email(*, to: str, body: str) -> None: ...
async def update_order(*, id: str, status: Literal["open", "closed", "paid"]) -> Order: ...
async def point(*, at: tuple[float, float]) -> None: ...
async def delete(*, id: int) -> None: ...
class Card(TypedDict):
    kind: Literal["card"]
    last4: str
class Bank(TypedDict):
    kind: Literal["bank"]
    iban: str
async def methods() -> list[Card | Bank]: ...
async def products() -> dict[str, Customer]: ...
async def add_note(*, id: int, text: str) -> None: ...
async def move(*, to: Address) -> None: ...
class Place(TypedDict):
    city: str
    street: str
async def visit(*, at: Place) -> None: ...
"""
RIGHT = [
    "await svc.near(at=[1.5, 2.5], tags=['a'])",
    "d = {'a': 'x'}\nfor k in d:\n    d[k] = [d[k]]\nawait svc.label(labels=d['a'])",
    "j = await svc.job(id=1)\nif j['error']:\n    await svc.label(to=j['error'])\nawait svc.label(to=j.get('error') or 'x')",
    "by = {each['kind']: each for each in await svc.methods()}\nprint(by['card']['last4'], by['bank']['iban'])",
    "def total(o) -> int:\n    return o['total']\nprint(total((await svc.orders())[0]))",
    'for o in await svc.orders():\n    if o.get("due"):\n        print(o["due"].year)',
    'for o in await svc.orders():\n    if not o.get("due"):\n        continue\n    print(o["due"].year)',
    'print([c["address"]["city"] for c in await svc.customers() if c.get("address") is not None])',
    'j = await svc.job(id=1)\nif j.get("error"):\n    await svc.send_email(to="a", body=j["error"])',
    'c = await svc.customer(id="a")\nif c["address"]:\n    print(c.get("address")["city"])',
    'async def by(tier: str = ""):\n    return await svc.customers(tier=tier) if tier else await svc.customers()\nawait by("gold")',
    'nexts = {"open": "paid"}\nfor o in await svc.orders():\n    n = nexts.get(o["status"])\n    if n:\n        await svc.update_order(id=o["id"], status=n)',
    'd = {"a": "open"}\ns = d.get("b") or "closed"\nawait svc.orders(status=s)',
    's = "Open".lower()\nif s != "all":\n    await svc.orders(status=s)',
    'best, top = None, -1\nfor o in await svc.orders():\n    if o["total"] > top:\n        best, top = o, o["total"]\nprint(best["id"])',
    'for o in await svc.orders():\n    o.update({"n": 1})\n    print(o["n"])',
    'for o in await svc.orders():\n    o.update(n=1)\n    print(o["n"])',
    'for o in await svc.orders():\n    o.setdefault("lines", []).append(1)\n    print(o["lines"])',
    'for o in await svc.orders():\n    o.pop("nope", None)',
    'for o in await svc.orders():\n    for k, v in {"n": 1}.items():\n        o[k] = v\n    print(o["n"])',
    'def tag(o, **kw):\n    o.update(kw)\nfor o in await svc.orders():\n    tag(o, note="x")\n    print(o["note"])',
    'for o in await svc.orders():\n    if o.get("discount"):\n        print(o["discount"])',
    'base = {"status": "open", "limit": 5}\nawait svc.orders(**{**base, "limit": 3})',
    'base = {"status": "open", "limit": 5}\np = {**base, "limit": 3}\nawait svc.orders(**p)',
    'j = await svc.job(id=1)\nif j["state"] == "done":\n    print(j["result"]["n"])',
    'j = await svc.job(id=1)\nwhile j["state"] != "done":\n    j = await svc.job(id=1)\nprint(j["result"]["n"])',
    'j = await svc.job(id=1)\nmatch j["state"]:\n    case "failed":\n        print(j["error"].upper())',
    'cs = await svc.customers()\nfor i in range(len(cs)):\n    if cs[i]["address"] is not None:\n        print(cs[i]["address"]["city"])',
    'c = await svc.find_customer(email="a")\nif c is None:\n    raise ValueError("x")\nasync def go():\n    return await svc.orders(status="open", limit=len(c["id"]))\nawait go()',
    'def has(x):\n    return x["address"] is not None\nfor c in await svc.customers():\n    if has(c):\n        print(c["address"]["city"])',
    'os_ = await svc.orders()\nif all(o["due"] for o in os_):\n    print(os_[0]["due"].year)',
    'ps = await svc.products()\nif "s1" in ps:\n    print(ps.get("s1")["name"])',
    'ps = await svc.products()\nfor k in ps:\n    print(ps.get(k)["name"])',
    'c = await svc.customer(id="a")\nif "notes" in c:\n    print(c.get("notes").upper())',
    'for o in await svc.orders():\n    try:\n        print(o["due"].isoformat())\n    except AttributeError:\n        print("none")',
    'c = await svc.find_customer(email="a")\ntry:\n    print(c["name"])\nexcept TypeError:\n    print("none")',
    "cursor: str = None\nprint(cursor)",
    'total: int = 0\nfor o in await svc.orders():\n    total += o["total"]\nprint(total)',
    'from decimal import Decimal\ndef f(x: float):\n    return x * 2\nprint(f(Decimal("1")))',
    'def f(x: str) -> str:\n    return x or None\nprint(f("a"))',
    'def f(x: str = None):\n    return x or "-"\nj = await svc.job(id=1)\nprint(f(j["error"]))',
    'try:\n    await svc.orders()\nexcept Exception as e:\n    print(e.message if hasattr(e, "message") else str(e))',
    'at = tuple(float(x) for x in "1,2".split(","))\nawait svc.point(at=at)',
    "class A:\n    def __init__(self):\n        self.x = 1\na = A()\na.y = 2\nprint(a.y)",
    "best = [None] * 3\nfor i, o in enumerate(await svc.orders()):\n    best[i] = o\nprint([o['id'] for o in best])",
    "d = {'a': None}\nfor k in d:\n    d[k] = await svc.customer(id='a')\nprint(d['a']['name'])",
    "o = (await svc.orders())[0]\nrow, t = [o, o['total']]\nprint(row['id'], t + 1)",
    "from svc import orders\norders = await orders()\norders.sort(key=lambda o: o['id'])\nprint(orders[0]['id'])",
    "import svc\ndef show(svc):\n    return svc.get('name')\nprint(show(await svc.customer(id='a')))",
    "import asyncio\nasync def one(i):\n    return (await svc.job(id=i))['state']\nprint(await asyncio.gather(*map(one, [1, 2])))",
    "rows = await svc.customers()\nrows += [{'id': 'x', 'name': 'y'}]\nprint(len(rows))",
    "j = await svc.job(id=1)\nawait svc.send_email(to='a', body=j['error'] if j['state'] == 'failed' else 'ok')",
    "async def retry(job):\n    for _ in range(3):\n        job['error'] = job['error'] or {'code': 0}\n    return job\nj = await retry(await svc.job(id=1))\nprint(j['error']['code'])",
    "await svc.add_note(id=1, text='x')",
    "def dumps(x, default=None):\n    return str(x or default)\nprint(dumps(0, default=1))",
    "class Text:\n    def __init__(self):\n        self.translate = 3\n    def sub(self, n, make):\n        return make(n)\nt = Text()\nprint(t.translate, t.sub(1, lambda n: n + 1))",
    "match {'input': 5}:\n    case {'input': input, **vars}:\n        print(input, vars)",
    "o = {'city': 'x'}\nmatch [{'city': 'y'}]:\n    case [o]:\n        pass\nawait svc.move(to=o)",
    "a = {'city': 'x'}\nb = a\nb |= {'street': 's'}\nawait svc.visit(at=a)",
    "j = await svc.job(id=1)\nd = {'a': j}\nd.update({'a': 'x'})\nprint(d['a'].upper())",
    "j = await svc.job(id=1)\nd = {'a': j}\nk = 'a'\nd[k] = 'x'\nprint(d['a'].upper())",
    "d = {'a': await svc.job(id=1)}\nd.pop('a')\nd.setdefault('a', 'x')\nprint(d['a'].upper())",
    "xs = [await svc.orders()]\nxs[0] = await svc.orders()\nxs.insert(0, 'x')\nprint(xs[0].upper())",
    "d = {'who': await svc.customer(id='a')}\nd.update(who='bob')\nawait svc.send_email(to=d['who'], body='x')",
    "def fmt(d):\n    return d.strftime('%Y-%m-%d')\nrows = await svc.orders()\nfor o in rows:\n    o['placed'] = fmt(o['placed'])\nfor o in rows:\n    print(o['placed'].upper())",
    "import json\nrows = await svc.orders()\nfor o in rows:\n    o['total'] = json.loads('[1]')\nprint(rows[0]['total'][0])",
    "class Box:\n    def __init__(self, row):\n        self.row = row\n    def fix(self):\n        self.row['placed'] = str(self.row['placed'])\no = (await svc.orders())[0]\nBox(o).fix()\nprint(o['placed'].upper())",
    "c = await svc.customer(id='a')\nc['address'] = {'line': 'x'}\nprint(c['address']['line'])",
    "class A:\n    def add(self, o):\n        o['n'] = 1\nclass B:\n    def add(self, rows):\n        rows.append(2)\no = (await svc.orders())[0]\nA().add(o)\nprint(o['n'])",
]
WRONG = [
    "def add(out, x):\n    out.append(x)\nfound = []\nfor o in await svc.orders():\n    add(found, o['amount'])",
    "tags = set()\ntags |= {'a'}\nfor o in await svc.orders():\n    print(o['amount'])",
    "import collections\ncounts = collections.defaultdict(int)\nfor o in await svc.orders():\n    counts[o['id']] += 1\n    print(o['amount'])",
    "seen = [0] * 3\nfor i in range(3):\n    seen[i] = 1\nprint((await svc.orders())[0]['amount'])",
    "await svc.label(labels=','.join(['a']))",
    "await svc.label(labels=str(5))",
    "j = await svc.job(id=1)\nawait svc.label(to=j['error'])",
    "by = {each['kind']: each for each in await svc.methods()}\nprint(by['card']['last5'])",
    'o = (await svc.orders())[0]\no["due"].year',
    'c = await svc.find_customer(email="a")\nc["name"]',
    "(await svc.orders()).total",
    'o = (await svc.orders())[0]\no["amount"]',
    'await svc.orders(status="opn")',
    'await svc.orders(stat="open")',
    "asyncio.gather()",
    "print(date.today())",
    'c = await svc.customer(id="a")\nc["address"]["city"]',
    "rows = await svc.orders()\nrows[0].update(x=1)\nawait svc.customer(idd=1)",
    "for o in await svc.orders():\n    for k in ('id', 'status'):\n        o[k] = o[k].upper()\nfor c in await svc.customers():\n    print(c['nam'])",
    "c = await svc.customer(id='a')\nif isinstance(c['name'], str):\n    print(c['name'])\norders = await svc.orders()\nprint(orders['data'])",
    "by = {o['id']: o for o in await svc.orders()}\nprint(by['x']['amount'])",
    "by = {}\nfor o in await svc.orders():\n    by[o['id']] = o\nfor c in await svc.customers():\n    print(c['adress'])",
    "orders = await svc.orders()\nfor o in orders:\n    o['late'] = True\nprint((await svc.customers())[0]['late'])",
    "for c in await svc.customers():\n    if c['address']:\n        print(c['address']['city'])\nfor o in await svc.orders():\n    print(o['due'].year)",
    "for o in await svc.orders():\n    if o['total'] > 5:\n        print(o['due'].year)",
    "class Book:\n    def __init__(self, rows):\n        self.rows = rows\n        self.seen = {}\n    def mark(self, key):\n        self.seen[key] = 1\nBook(await svc.orders()).mark('x')\nprint((await svc.customers())['data'])",
    "await svc.move(to={})",
    "for o in await svc.orders():\n    if o['state'] == 'open':\n        print(o['id'])",
    "print([o['id'] for o in await svc.orders() if o['quantity'] > 1])",
    "from svc import visit\nplace = {'city': 'x'}\nawait visit(at=place)",
    "from svc import send_email\nmail = {'to': 5, 'body': 'x'}\nawait send_email(**mail)",
    "from json import dumps\nplace = {'city': 'x'}\nprint(dumps(place))\nawait svc.visit(at=place)",
]
"""A tool's nullable value that nothing asks about, a key that is nowhere put, a word that a tool does not know."""
AFTER_CELLS = [
    (
        'rows = await svc.orders()\nfor r in rows:\n    r["customer"] = await svc.customer(id=r["customer_id"])',
        'print(rows[0]["customer"]["name"])',
    ),
    (
        'rows = await svc.orders()\nfor r in rows:\n    r["placed"] = r["placed"].isoformat()',
        'print(rows[0]["placed"][:10])',
    ),
    (
        'from decimal import Decimal\nrows = await svc.orders()\nfor i, r in enumerate(rows):\n    r["total"] = Decimal("1")',
        'print(rows[0]["total"] + Decimal("2"))',
    ),
    ('def tag(o):\n    o["n"] = 1\nrows = await svc.orders()\nfor r in rows:\n    tag(r)', 'print(rows[0]["n"])'),
]
"""What ran before, and a program that is right after it."""


@pytest.mark.claim("P2.layout")
async def test_what_a_program_asks_about_is_its_own_matter():
    found = await verdicts(RIGHT, STUB)
    assert [(text, each) for text, each in zip(RIGHT, found, strict=True) if each] == []


@pytest.mark.claim("P1.checked_before")
async def test_what_it_asks_nothing_about_is_a_mistake():
    found = await verdicts(WRONG, STUB)
    assert [text for text, each in zip(WRONG, found, strict=True) if not each] == []


@pytest.mark.claim("P2.cells")
async def test_what_an_earlier_program_put_into_rows_is_there():
    for before, program in AFTER_CELLS:
        assert await verdicts([program], STUB, Transcript(cells=(Cell(source=before),))) == [[]]


@pytest.mark.parametrize(
    "program", ["[svc.delete(id=i) for i in (1, 2)]", "for i in (1, 2):\n    x = svc.delete(id=i)"]
)
def test_calls_in_a_loop_that_nothing_can_await_are_refused(program):
    assert any("is not awaited" in each.what for each in lacks(program, ["svc"]))


async def test_a_name_of_the_standard_library_is_said_to_want_an_import():
    found = await verdicts(["asyncio.sleep(1)", "print(date.today())", "print(unheard_of)"], STUB)
    assert [
        "add `import asyncio`" in found[0][0].message,
        "add `from datetime import date`" in found[1][0].message,
    ] == [True, True]
    assert "--input unheard_of=VALUE" in found[2][0].message


SAID = {
    "print(datetime.now())": "add `from datetime import datetime`",
    "import datetime\nprint(datetime.now())": "write `from datetime import datetime`",
    "c = await svc.customer(id='a')\nprint(c.name)": 'it is a dict, write ["name"]',
    "print(next((c for c in await svc.customers()), None))": "next(iter(...), None)",
    "import asyncio\nawait asyncio.wait_for(svc.customers(), 3)": "settings of their service",
    "print(open('x.txt').read())": "a program has no files",
    "await svc.nothing_like_it()": "it has orders, near, label",
}


async def test_what_is_refused_is_told_what_to_write_in_its_place():
    found = await verdicts(list(SAID), STUB)
    for (program, words), findings in zip(SAID.items(), found, strict=True):
        assert any(words in each.message for each in findings), (program, [each.message for each in findings])


async def test_what_a_comprehension_lacks_is_said_in_its_own_line():
    (findings,) = await verdicts(["x = 1\n\ny = [i async for i in x]"], STUB)
    assert findings[0].line == 3
