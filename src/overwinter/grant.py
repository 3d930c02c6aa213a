"""What a person lets an agent do beyond its declaration: a row, until it expires or is revoked."""

from overwinter.frozen import frozen

__all__ = ["PREFIX", "Granted"]

PREFIX = "grant:"
"""What the id of every grant begins with, and of no rule that is written."""


@frozen
class Granted:
    """A grant as the store has it."""

    id: str = ""
    """`grant:17`, never given again; "" before it is made. It names the rule in decisions and in the audit log."""
    agent: str
    pattern: str
    """A function, `service.function`, or a pattern of functions as in `overwinter.toml`."""
    reads_only: bool = False
    """Only functions that change nothing."""
    is_asked: bool = False
    """Only once a person has said yes to the very call."""
    approver: str = ""
    """That person, or several with commas between them; "" for the agent's owner."""
    expires_us: int | None = None
    """When it ends by itself, microseconds UTC."""
    by: str = ""
    """Who granted it."""
    made_us: int = 0
