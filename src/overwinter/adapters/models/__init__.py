"""Models of providers: what they cost, what was spent, what is kept of their answers, and the way to them."""

from overwinter.adapters.models.cassettes import Cassette
from overwinter.adapters.models.file import ModelsFile, Total
from overwinter.adapters.models.opened import ModelParts, load, open_models
from overwinter.adapters.models.scripted import Heard, ScriptedModel, ToolCall
from overwinter.adapters.models.thinking import Conversation, Thinker

__all__ = [
    "Cassette", "Conversation", "Heard", "ModelParts", "ModelsFile", "ScriptedModel", "Thinker", "ToolCall", "Total", "load", "open_models",
]  # fmt: skip
