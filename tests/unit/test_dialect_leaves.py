"""Which texts of a request redaction looks at, by what each dialect says it must leave alone."""

import base64
import json

import pytest

from overwinter.adapters.dialects import dialects
from overwinter.gateway.leaves import read

FILE = base64.b64encode(bytes(range(256)) * 3).decode()
TEXT = "a letter"


@pytest.mark.parametrize(
    ("name", "part", "is_seen"),
    [
        ("messages", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": FILE}}, False),
        ("messages", {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": TEXT}}, True),
        ("messages", {"type": "tool_use", "id": "t", "name": "f", "input": {"data": FILE}}, True),
        ("messages", {"type": "thinking", "thinking": TEXT, "signature": FILE}, False),
        ("gemini", {"inlineData": {"mimeType": "image/png", "data": FILE}}, False),
        ("gemini", {"functionCall": {"name": "f", "args": {"data": TEXT}}}, True),
        ("chat", {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{FILE}"}}, False),
        ("chat", {"type": "file", "file": {"file_data": FILE}}, False),
        ("chat", {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{FILE}", "file_id": TEXT}}, False),
        ("chat", {"type": "file", "file": {"filename": TEXT}}, True),
        ("gemini", {"inlineData": {"mimeType": TEXT, "data": "QUJD"}}, False),
        ("gemini", {"inlineData": {"displayName": TEXT, "data": FILE}}, True),
        ("gemini", {"inline_data": {"display_name": TEXT, "data": FILE}}, True),
        ("gemini", {"fileData": {"fileUri": TEXT}}, False),
        ("messages", {"type": "clear_tool_uses_20250919", "exclude_tools": [TEXT], "clear_tool_inputs": [TEXT]}, False),
        ("messages", {"type": "compact_20260112", "instructions": TEXT}, True),
        ("chat", {"type": "text", "text": TEXT}, True),
        ("responses", {"type": "input_image", "image_url": f"data:image/png;base64,{FILE}"}, False),
        ("responses", {"type": "reasoning", "encrypted_content": FILE}, False),
        ("responses", {"type": "function_call_output", "output": TEXT}, True),
    ],
)  # fmt: skip
def test_a_file_is_left_alone_and_a_text_is_not(name: str, part: dict[str, object], *, is_seen: bool):
    dialect = {str(key): value for key, value in dialects().items()}[name]
    document = read(json.dumps([part]), "content", dialect.opaque_keys)
    assert any(each.text in (TEXT, FILE) or FILE in each.text for each in document.leaves) == is_seen
