"""What exists in pydantic-monty 1.4.0: every built-in, standard module and module attribute of CPython 3.13 was tried by name.

Made anew when the interpreter's version changes; `tests/unit/test_checker.py` tries all of it in the interpreter.
"""

__all__ = ["BUILTINS_MISSING", "MODULES"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


BUILTINS_MISSING = _names(
    "BaseExceptionGroup BlockingIOError BrokenPipeError BufferError BytesWarning ChildProcessError "
    "ConnectionAbortedError ConnectionError ConnectionRefusedError ConnectionResetError DeprecationWarning EOFError "
    "EncodingWarning EnvironmentError ExceptionGroup FloatingPointError FutureWarning GeneratorExit IOError "
    "ImportWarning IndentationError InterruptedError PendingDeprecationWarning ProcessLookupError "
    "PythonFinalizationError ReferenceError ResourceWarning RuntimeWarning StopAsyncIteration SyntaxWarning "
    "SystemError TabError UnicodeError UnicodeTranslateError UnicodeWarning UserWarning Warning __builtins__ "
    "__import__ aiter anext ascii breakpoint bytearray callable classmethod compile copyright credits delattr dir "
    "exit globals help input issubclass license memoryview quit staticmethod super vars"
)

ADVICE = {
    "asyncio": "use `await asyncio.gather(...)` for calls side by side; of time-outs, those of functions are settings of their service, and tools.ask and tools.receive take timeout=",
    "collections.abc": "import it from typing",
    "copy": "write dict(row) or list(rows)",
    "csv": "write text.splitlines() and line.split(',')",
    "exit": "let the program reach its end, or return from a function",
    "input": "await tools.ask(person, question)",
    "operator": "write lambda row: row['key']",
    "os.environ": "pass it as an input",
    "os.system": "use a tool",
    "quit": "let the program reach its end, or return from a function",
    "statistics": "write sum(values) / len(values); the median is the middle one of sorted(values), or the mean of the two",
    **dict.fromkeys(
        ("datetime.now", "datetime.today", "datetime.fromisoformat", "datetime.strptime", "datetime.combine"),
        "it is of the class in the module: write `from datetime import datetime`, or datetime.datetime",
    ),
    "str.maketrans": "write one .replace(...) after another",
    "open": "a program has no files: what it returns or prints is kept, and tools.read gives parts of it",
    "subprocess": "use a tool",
    "sys.exit": "let the program reach its end, or return from a function",
    "threading": "use `await asyncio.gather(...)` for calls side by side",
    "typing.TypedDict": "use a plain dict",
    "urllib.request": "use a tool: `await tools.search(...)` finds them",
}
"""What to write instead, by module, name in a module, or built-in."""

MODULES = {
    "__future__": _names("annotations"),
    "asyncio": _names("gather run sleep"),
    "base64": _names(
        "MAXBINSIZE MAXLINESIZE a85decode a85encode b16decode b16encode b32decode b32encode b32hexdecode "
        "b32hexencode b64decode b64encode b85decode b85encode decodebytes encodebytes standard_b64decode "
        "standard_b64encode urlsafe_b64decode urlsafe_b64encode z85decode z85encode"
    ),
    "binascii": _names(
        "Error Incomplete a2b_base64 a2b_hex a2b_qp a2b_uu b2a_base64 b2a_hex b2a_qp b2a_uu crc32 crc_hqx hexlify "
        "unhexlify"
    ),
    "bisect": _names("bisect bisect_left bisect_right insort insort_left insort_right"),
    "collections": _names("Counter defaultdict deque namedtuple"),
    "copy": _names("copy deepcopy"),
    "csv": _names(
        "Dialect DictReader DictWriter Error QUOTE_ALL QUOTE_MINIMAL QUOTE_NONE QUOTE_NONNUMERIC QUOTE_NOTNULL "
        "QUOTE_STRINGS excel excel_tab field_size_limit get_dialect list_dialects reader unix_dialect writer"
    ),
    "dataclasses": _names("FrozenInstanceError MISSING dataclass field is_dataclass"),
    "datetime": _names("date datetime time timedelta timezone"),
    "decimal": _names(
        "BasicContext Clamped Context ConversionSyntax Decimal DecimalException DecimalTuple DefaultContext "
        "DivisionByZero DivisionImpossible DivisionUndefined ExtendedContext FloatOperation HAVE_CONTEXTVAR "
        "HAVE_THREADS Inexact InvalidContext InvalidOperation MAX_EMAX MAX_PREC MIN_EMIN MIN_ETINY Overflow "
        "ROUND_05UP ROUND_CEILING ROUND_DOWN ROUND_FLOOR ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP "
        "Rounded Subnormal Underflow getcontext localcontext setcontext"
    ),
    "functools": _names("cache lru_cache partial reduce"),
    "hashlib": _names(
        "algorithms_available algorithms_guaranteed blake2b blake2s md5 new pbkdf2_hmac sha1 sha224 sha256 sha384 "
        "sha3_224 sha3_256 sha3_384 sha3_512 sha512 shake_128 shake_256"
    ),
    "itertools": _names(
        "accumulate batched chain combinations combinations_with_replacement compress count cycle dropwhile "
        "filterfalse groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest"
    ),
    "json": _names("JSONDecodeError dump dumps load loads"),
    "math": _names(
        "acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 "
        "expm1 fabs factorial floor fma fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm "
        "ldexp lgamma log log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt "
        "sumprod tan tanh tau trunc ulp"
    ),
    "os": _names(
        "altsep chdir curdir defpath devnull extsep fspath getcwd getcwdb getenv linesep listdir makedirs mkdir "
        "name pardir path pathsep remove rename replace rmdir scandir sep stat unlink urandom walk"
    ),
    "pathlib": _names("Path"),
    "random": _names(
        "Random betavariate binomialvariate choice choices expovariate gammavariate gauss getrandbits getstate "
        "lognormvariate normalvariate paretovariate randbytes randint random randrange sample seed setstate shuffle "
        "triangular uniform vonmisesvariate weibullvariate"
    ),
    "re": _names(
        "A ASCII DOTALL I IGNORECASE M MULTILINE Match NOFLAG Pattern PatternError S compile error escape findall "
        "finditer fullmatch match search split sub"
    ),
    "sys": _names(
        "abiflags api_version argv base_exec_prefix base_prefix builtin_module_names byteorder copyright "
        "dont_write_bytecode exec_prefix executable flags float_info float_repr_style hexversion maxsize maxunicode "
        "platform platlibdir prefix pycache_prefix stderr stdout version version_info"
    ),
    "time": _names(
        "altzone asctime ctime daylight gmtime localtime mktime monotonic monotonic_ns perf_counter perf_counter_ns "
        "process_time process_time_ns sleep strftime strptime thread_time thread_time_ns time time_ns timezone "
        "tzname"
    ),
    "tomllib": _names("TOMLDecodeError load loads"),
    "typing": _names(
        "Annotated Any Callable ClassVar Dict Final FrozenSet Generator Generic Iterable Iterator List Literal "
        "Mapping Never NoReturn Optional Protocol Self Sequence Set TYPE_CHECKING Tuple Type TypeVar Union"
    ),
    "unicodedata": _names("category combining is_normalized lookup name normalize unidata_version"),
}
"""Module to the names it has."""
