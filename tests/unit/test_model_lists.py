"""What is no model call at the models' door: in the dialect of whoever asks, whatever becomes of it."""

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import anthropic
import openai
import pytest
from google.genai import errors as genai_errors
from starlette.routing import Route

from doors import Door, door_of
from models_kit import config_of
from overwinter.config import Agent
from overwinter.faces.api import api
from overwinter.faces.model_lists import spoken
from provider import Mock
from sdks import of_anthropic, of_google, of_openai, quiet

pytestmark = [pytest.mark.anyio, quiet]
SDKS = ("openai", "anthropic", "google")
every_sdk = pytest.mark.parametrize("sdk", SDKS)
NONE = {"x-overwinter-agent": "none"}


@pytest.fixture
async def door(project, provider: Mock) -> AsyncGenerator[Door]:
    config = config_of(provider.url)
    models = {"cheap": config.models["cheap"], "gpt-*": config.models["*"]}
    agents = {**config.agents, "default": Agent(models=("cheap", "gpt-5"))}
    async with door_of(project, replace(config, models=models, agents=agents)) as door:
        yield door


async def found(
    door: Door, sdk: str, model: str = "", *, key: str = "", headers: Mapping[str, str] | None = None
) -> Any:
    """Return the names of the models that an SDK is told of, or the name of the one that it asks for."""
    key = key or door.key
    if sdk == "google":
        models = of_google(door.url, key=key, headers=headers).models
        return (await models.get(model=model)).name if model else [each.name async for each in await models.list()]
    of_sdk = of_openai if sdk == "openai" else of_anthropic
    async with of_sdk(door.url, key=key, default_headers=headers) as client:
        if model:
            return (await client.models.retrieve(model)).id
        return [each.id async for each in client.models.list()]


async def status_of(door: Door, sdk: str, model: str = "", **options: Any) -> int:
    """Return the status of the error that an SDK raises, in whose shape it came."""
    kinds = (openai.APIStatusError, anthropic.APIStatusError, genai_errors.APIError)
    with pytest.raises(kinds[SDKS.index(sdk)]) as raised:
        await found(door, sdk, model, **options)
    error: Any = raised.value
    if sdk == "openai":
        assert error.body["message"]
        assert error.code
    elif sdk == "anthropic":
        assert error.body["type"] == "error"
        assert error.body["error"]["message"]
    else:
        assert error.message
        assert error.status.isupper()
    return error.code if sdk == "google" else error.status_code


@every_sdk
async def test_a_model_is_found_by_its_name_also_where_a_pattern_stands_for_it(door: Door, sdk: str):
    before = "models/" * (sdk == "google")
    assert await found(door, sdk) == [f"{before}cheap"]
    assert await found(door, sdk, "cheap") == f"{before}cheap"
    assert await found(door, sdk, "gpt-5") == f"{before}gpt-5"


@every_sdk
async def test_each_refusal_of_a_list_is_an_error_of_the_sdk(door: Door, sdk: str):
    for model in ("", "cheap"):
        assert await status_of(door, sdk, model, key="k") == 401
        assert await status_of(door, sdk, model, key=door.key[:-1] + ("y" if door.key[-1] == "x" else "x")) == 401
        assert await status_of(door, sdk, model, headers={"x-overwinter-agent": "nobody"}) == 403
    token, key = await door.app.access.create("ben@example.com", by="lead", scopes=("read",))
    assert token.scopes == ("read",)
    assert await status_of(door, sdk, key=key) == 403
    assert await found(door, sdk, headers=NONE) == []
    assert await status_of(door, sdk, "cheap", headers=NONE) == 404
    assert await status_of(door, sdk, "gpt-6") == 404
    assert await status_of(door, sdk, "dear") == 404


UNANSWERED = (
    ("openai", "POST", "/v1/batches", {}),
    ("openai", "POST", "/v1/models", {}),
    ("openai", "DELETE", "/v1/models/cheap", {}),
    ("openai", "GET", "/v1/files/file-1/content", {}),
    ("openai", "POST", "/v1/images/generations", {}),
    ("openai", "GET", "/v1/chat/completions/chatcmpl-1", {}),
    ("openai", "GET", "/v1/responses/resp_1/input_items", {}),
    ("anthropic", "POST", "/v1/messages/batches", {}),
    ("anthropic", "GET", "/v1/files", {"anthropic-version": "2023-06-01"}),
    ("google", "POST", "/v1beta/models/cheap:batchGenerateContent", {}),
    ("google", "POST", "/v1beta/models/cheap:embedContent", {}),
    ("google", "POST", "/v1beta/cachedContents", {}),
)


@pytest.mark.parametrize(
    ("sdk", "method", "path", "headers"), UNANSWERED, ids=[f"{one[1]} {one[2]}" for one in UNANSWERED]
)
async def test_what_a_provider_has_and_we_do_not_is_refused_in_its_dialect(
    door: Door, provider: Mock, *, sdk: str, method: str, path: str, headers: Mapping[str, str]
):
    for key, expected in ((None, 404), ("k", 401)):
        status, told, body = await door.post(path, b"{}", key=key, headers=headers.items(), method=method)
        error = json.loads(body)
        assert (status, told["x-should-retry"]) == (expected, "false")
        assert ("type" in error) == (sdk == "anthropic")
        assert ("status" in error["error"]) == (sdk == "google")
        assert ("is not answered here" if key is None else "an API token is needed") in error["error"]["message"]
    assert provider.calls == []


async def test_what_is_no_providers_path_is_the_apis(door: Door):
    for path in ("/v1/runs", "/v1/agents", "/v1/gateway/models", "/v1/nothing", "/metrics", "/v1/tokens", "/v1/audit"):
        assert spoken(path, {}) is None
    status, _, body = await door.post("/v1/nothing", b"", method="GET")
    assert status == 404
    assert json.loads(body)["error"]["type"] == "HTTPError"


async def test_no_path_of_the_api_is_taken_for_a_providers(door: Door):
    for route in api(door.app).routes:
        assert isinstance(route, Route)
        assert spoken(route.path, {"anthropic-version": "1", "x-goog-api-key": "k"}) is None, route.path
