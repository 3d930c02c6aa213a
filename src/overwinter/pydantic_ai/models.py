"""Models of Pydantic AI whose calls pass the home's gateway: priced, within the budget, redacted, in the ledger and the audit log.

The provider's key stays in the home; what is asked and answered has the provider's own format, byte for byte.
"""

from typing import Literal

from pydantic_ai.models import Model

from overwinter.pydantic_ai.home import Home

__all__ = ["model"]

NO_KEY = "none"
"""An SDK insists on a key; the home's socket asks for none, and a token is in the client already."""
AGENT = "x-overwinter-agent"


def model(home: Home, name: str, dialect: Literal["chat", "responses", "messages"] = "chat") -> Model:
    """Return a model that is asked through a home's gateway.

    Args:
        home: whose gateway, under whose agent.
        name: of the model, as `[models]` of `overwinter.toml` declares it.
        dialect: the provider's format: `chat` and `responses` need the package `openai`, `messages` needs `anthropic`.
            The gateway turns chat into messages and back where the provider speaks only the other.
    """
    headers = {AGENT: home.agent}
    key = home.client.headers.get("authorization", "").removeprefix("Bearer ") or NO_KEY
    # An SDK's own retries would come on top of those that the gateway makes, and be paid for: it makes none.
    if dialect == "messages":
        from anthropic import AsyncAnthropic  # noqa: PLC0415 - one of two SDKs, each half a second
        from pydantic_ai.models.anthropic import AnthropicModel  # noqa: PLC0415 - the same
        from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: PLC0415 - the same

        asked = AsyncAnthropic(
            auth_token=key, base_url=home.url, http_client=home.client, default_headers=headers, max_retries=0
        )
        return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=asked))
    from openai import AsyncOpenAI  # noqa: PLC0415 - the same
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel  # noqa: PLC0415 - the same
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415 - the same

    client = AsyncOpenAI(
        api_key=key, base_url=f"{home.url}/v1", http_client=home.client, default_headers=headers, max_retries=0
    )
    kind = OpenAIChatModel if dialect == "chat" else OpenAIResponsesModel
    return kind(name, provider=OpenAIProvider(openai_client=client))
