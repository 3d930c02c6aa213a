"""The official SDKs, with the provider of the tests or whatever else is at an address. Untyped: their unions hide the tests."""

from collections.abc import Mapping
from typing import Any

import anthropic
import openai
import pytest
from google import genai

quiet = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")
"""google-genai makes one of aiohttp's sessions its own."""


def of_openai(url: str, *, retries: int = 0, key: str = "k", **options: Any) -> Any:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=retries, **options)


def of_anthropic(url: str, *, retries: int = 0, key: str = "k", **options: Any) -> Any:
    return anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=retries, **options)


def of_google(url: str, *, key: str = "k", headers: Mapping[str, str] | None = None) -> Any:
    return google_client(url, key=key, headers=headers).aio


def google_client(url: str, *, key: str = "k", headers: Mapping[str, str] | None = None) -> genai.Client:
    return genai.Client(api_key=key, http_options={"base_url": url, "headers": dict(headers or {})})
