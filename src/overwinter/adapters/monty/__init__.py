"""The interpreter: Monty in jailed workers."""

from overwinter.adapters.monty.engine import MontyInterpreter, open_interpreter
from overwinter.adapters.monty.posture import JailSettings, Layer, diagnose, escapes

__all__ = ["JailSettings", "Layer", "MontyInterpreter", "diagnose", "escapes", "open_interpreter"]
