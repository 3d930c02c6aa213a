"""A provider of models on loopback that misbehaves on request and keeps its own bill.

It speaks OpenAI chat completions, Responses (background too) and embeddings, Anthropic messages, and Gemini; streamed and whole.
A token is four bytes of prompt, or one event of an answer. In a test ask for the fixture `provider`; for benches

    python -m tests.provider --port 9100

    POST   /_mock/rules    a JSON list of `Rule` fields: the first rule that fits a call and has uses left shapes its answer
    POST   /_mock/release  ends every wait that a rule made
    GET    /_mock/bill     {"totals": ..., "calls": [...]}: what a provider would charge, to compare with a ledger
    DELETE /_mock          forgets rules, bill, prompt cache and background answers
"""

from .plan import Charge, Event, Plan, Rule, Tokens
from .provider import Provider
from .server import Mock, running

__all__ = ["Charge", "Event", "Mock", "Plan", "Provider", "Rule", "Tokens", "running"]
