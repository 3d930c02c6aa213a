"""Agents of Pydantic AI on a home: their model calls through its gateway, their programs and tools durable, its inbox for approvals.

```python
home = Home.served(Path(".overwinter"), agent="desk")
agent = Agent(
    model(home, "claude-sonnet-5", "messages"),
    toolsets=[code(home)],
    capabilities=[HandleDeferredToolCalls(handler=Approvals(home))],
)
```

Needs the extra `pydantic-ai`; docs/pydantic-ai.md shows each part.
"""

from overwinter.pydantic_ai.approvals import Approvals, Durable, approvals
from overwinter.pydantic_ai.home import Home
from overwinter.pydantic_ai.models import model
from overwinter.pydantic_ai.offer import Offer
from overwinter.pydantic_ai.programs import code

__all__ = ["Approvals", "Durable", "Home", "Offer", "approvals", "code", "model"]
