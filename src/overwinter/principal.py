"""Who acts: the principal of every decision, as in Cedar."""

from dataclasses import dataclass

__all__ = ["Principal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A governed identity at work: one agent, in one of its runs."""

    agent: str
    """Name of the agent, as in `overwinter.toml`."""
    run_id: str
    owner: str
    """The person who answers for the agent, by address or name; asked when an outcome is unknown."""
