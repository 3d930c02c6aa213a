"""How far the audit log has what other files of the home tell it. The number is written in the commit of the entries.

So a crash between the two files neither loses an entry nor writes one twice.
"""

import apsw

__all__ = ["OUTBOX_4", "reach", "reached"]

OUTBOX_4 = """
create table outbox (name text primary key, seq integer not null) strict, without rowid;
"""


def reached(db: apsw.Connection, name: str) -> int:
    """Return up to which number the log has what one file tells; 0: nothing yet."""
    return next((found for (found,) in list(db.execute("select seq from outbox where name = ?", (name,)))), 0)


def reach(db: apsw.Connection, name: str, seq: int) -> None:
    """Write down up to which number the log has it."""
    db.execute("insert or replace into outbox (name, seq) values (?, ?)", (name, seq))
