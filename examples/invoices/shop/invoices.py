"""The invoice database as tools. `INVOICES_DB` says where it is; `python -m shop.invoices FILE COUNT` makes one."""

import os
import random
import sys
import time
from typing import Literal, TypedDict

import apsw

from overwinter import CallError, idempotent, read

State = Literal["open", "paid", "declined", "waived"]


class Invoice(TypedDict):
    id: int
    customer: str
    amount_cents: int
    due_at: float
    by_transfer: bool
    state: State


@read
def get(*, id: int) -> Invoice:
    """One invoice."""
    for row in _open().execute(
        "select id, customer, amount_cents, due_at, by_transfer, state from invoice where id = ?", (id,)
    ):
        return Invoice(
            id=row[0], customer=row[1], amount_cents=row[2], due_at=row[3], by_transfer=bool(row[4]), state=row[5]
        )
    raise CallError(f"there is no invoice {id}", status=404, code="no_such_invoice")


@idempotent
def close(*, id: int, state: State) -> None:
    """Write down what became of an invoice."""
    _open().execute("update invoice set state = ? where id = ?", (state, id))


def _open() -> apsw.Connection:
    connection = apsw.Connection(os.environ["INVOICES_DB"], flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(10_000)
    return connection


def _make(path: str, count: int) -> None:
    """Make a database of invoices that are due in one to ninety days; a tenth go by bank transfer."""
    rng = random.Random(7)
    names = ("Ada", "Bela", "Chidi", "Dana", "Emre", "Fay", "Goro", "Hana", "Ivo", "Juno")
    connection = apsw.Connection(path)
    connection.execute("pragma journal_mode=wal")
    connection.execute(
        "create table invoice (id integer primary key, customer text, amount_cents int, due_at real, by_transfer int, "
        "state text default 'open') strict"
    )
    with connection:
        connection.executemany(
            "insert into invoice (id, customer, amount_cents, due_at, by_transfer) values (?, ?, ?, ?, ?)",
            (
                (
                    number,
                    f"{rng.choice(names)} {number}",
                    rng.randrange(500, 420_000),
                    time.time() + rng.uniform(1, 90) * 86_400,
                    rng.random() < 0.1,
                )
                for number in range(1, count + 1)
            ),
        )


if __name__ == "__main__":
    _make(sys.argv[1], int(sys.argv[2]))
