"""The embedded store: one SQLite file, one writing connection, group commit, every acknowledged commit on the disk."""

from overwinter.adapters.sqlite.audit_log import AuditLog
from overwinter.adapters.sqlite.store import SqliteStore, open_store

__all__ = ["AuditLog", "SqliteStore", "open_store"]
