"""The embedded store: one SQLite file, one writing connection, group commit, every acknowledged commit on the disk."""

from overwinter.adapters.sqlite.anchor import Accepted
from overwinter.adapters.sqlite.anchor import accept as accept_older
from overwinter.adapters.sqlite.audit_keeping import AuditKeeping
from overwinter.adapters.sqlite.audit_log import ANCHOR_NAME, AuditLog, begin_anew, open_log
from overwinter.adapters.sqlite.deliveries import SqliteDeliveries
from overwinter.adapters.sqlite.requests import SqliteRequests
from overwinter.adapters.sqlite.store import SqliteStore, open_store

__all__ = [
    "ANCHOR_NAME",
    "Accepted",
    "AuditKeeping",
    "AuditLog",
    "SqliteDeliveries",
    "SqliteRequests",
    "SqliteStore",
    "accept_older",
    "begin_anew",
    "open_log",
    "open_store",
]
