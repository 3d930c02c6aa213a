"""The official SDKs, with the provider of the tests or whatever else is at an address. Untyped: their unions hide the tests."""

from typing import Any

import anthropic
import openai
import pytest
from google import genai

quiet = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")
"""google-genai makes one of aiohttp's sessions its own."""


def of_openai(url: str, *, retries: int = 0) -> Any:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=retries)


def of_anthropic(url: str, *, retries: int = 0) -> Any:
    return anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=retries)


def of_google(url: str) -> Any:
    return genai.Client(api_key="k", http_options={"base_url": url}).aio
