"""Who acts: the principal of every decision, as in Cedar."""

from overwinter.frozen import frozen

__all__ = ["Principal"]


@frozen
class Principal:
    """A governed identity at work: one agent, in one of its runs, or a person."""

    agent: str
    """Name of the agent, as in `overwinter.toml`."""
    run_id: str
    owner: str
    """The person who answers for the agent, by address or name; asked when an outcome is unknown."""
    parents: tuple[str, ...] = ()
    """Agents on whose behalf it acts, nearest last. What one of them may not do, it may not do."""
    person: str = ""
    """Who acts by hand, for `approve`; "" if a program does."""

    @property
    def chain(self) -> tuple[str, ...]:
        """Return every agent that must be allowed: the first one that delegated first, the one at work last."""
        return (*self.parents, self.agent)
