"""The embedded store: one SQLite file, one writing connection, group commit, every acknowledged commit on the disk."""

from overwinter.adapters.sqlite.audit_keeping import AuditKeeping
from overwinter.adapters.sqlite.audit_log import AuditLog, open_log
from overwinter.adapters.sqlite.deliveries import SqliteDeliveries
from overwinter.adapters.sqlite.store import SqliteStore, open_store

__all__ = ["AuditKeeping", "AuditLog", "SqliteDeliveries", "SqliteStore", "open_log", "open_store"]
