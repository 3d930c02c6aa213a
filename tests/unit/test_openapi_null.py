"""None in a call of an API: a value where the body must have one, else nothing."""

import pytest

from overwinter.events import Status
from unit.test_openapi import SPEC, ran

pytestmark = pytest.mark.anyio


async def test_null_is_sent_where_a_body_must_have_something_and_left_out_where_it_need_not(project):
    body = {"type": "object", "required": ["any", "state"], "properties": {
        "any": {}, "state": {"enum": ["open", None]}, "more": {"type": "string"}, "none": {"type": ["string", "null"]}}}  # fmt: skip
    content = {"application/json": {"schema": body}}
    post = {"operationId": "mark", "requestBody": {"required": True, "content": content}, "responses": {"201": {"description": ""}}}  # fmt: skip
    spec = {**SPEC, "paths": {"/orders": {"post": post}}}
    run, seen, _ = await ran(project, "await api.mark(any=None, state=None, more=None, none=None)", spec=spec)
    assert run.status is Status.FINISHED, run.result
    assert [body for _, _, _, body in seen] == [{"any": None, "state": None, "none": None}]
