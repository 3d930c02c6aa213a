"""The interpreter: Monty in jailed workers."""

from overwinter.adapters.monty.engine import MontyInterpreter, open_interpreter
from overwinter.adapters.monty.workers import JailSettings

__all__ = ["JailSettings", "MontyInterpreter", "open_interpreter"]
