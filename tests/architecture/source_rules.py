# SPDX-License-Identifier: Apache-2.0
"""Rules about source text that need no import graph: purity, and who reads the environment."""

import ast
import fnmatch
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.architecture.tree import modules

# Pure modules take time, randomness and the environment as arguments, and do no IO.
PURE = (
    *("*.rules", "*.billing", "*.shares", "*.pace", "qubix_kernels.*.spec", "qubix_protocol", "qubix_protocol.*"),
    *("qubix_chain.devnet.engine", "qubix_chain.devnet.faults"),
)
IMPURE_IMPORTS = frozenset(
    [
        "aiofiles",
        "asyncio",
        "asyncpg",
        "datetime",
        "httpx",
        "logging",
        "multiprocessing",
        "os",
        "psutil",
        "quart",
        "random",
        "requests",
        "secrets",
        "select",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "tortoise",
        "trio",
        "urllib",
        "websockets",
    ]
)
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "breakpoint", "uuid1", "uuid4"})
IMPURE_METHODS = frozenset(
    [
        "default_rng",
        "exists",
        "generate",
        "getenv",
        "is_dir",
        "is_file",
        "iterdir",
        "mkdir",
        "monotonic",
        "monotonic_ns",
        "now",
        "open",
        "perf_counter",
        "read_bytes",
        "read_text",
        "time_ns",
        "today",
        "token_bytes",
        "unlink",
        "urandom",
        "utcnow",
        "uuid1",
        "uuid4",
        "write_bytes",
        "write_text",
    ]
)
# Modules whose pure use is plain from the name that is taken from them.
PURE_NAMES = frozenset({"urllib.parse", "datetime.UTC", "datetime.datetime", "datetime.timedelta"})

# Making a key needs randomness by definition, and every process makes its own in this one place.
EXCEPTIONS = frozenset({("qubix_protocol.keys", "calls Ed25519PrivateKey.generate")})

MAY_READ_ENVIRONMENT = ("*.settings", "*_settings", "*.__main__")


def matches(module: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(module, pattern) for pattern in patterns)


def impurities(root: Path) -> list[str]:
    """Every use of a clock, IO, log, randomness or the environment in a module that must be pure."""
    return [
        f"{module}:{line}: {what}"
        for module, path in modules(root)
        if matches(module, PURE)
        for line, what in _impure_uses(ast.parse(path.read_text()))
        if (module, what) not in EXCEPTIONS
    ]


def _impure_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((node.lineno, f"imports {name}") for name in _impure_imports(node))
        elif isinstance(node, ast.Call) and _is_impure_call(node.func):
            yield node.lineno, f"calls {ast.unparse(node.func)}"


def _impure_imports(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        allowed = name in PURE_NAMES or name.rpartition(".")[0] in PURE_NAMES
        if name.split(".")[0] in IMPURE_IMPORTS and not allowed:
            yield name


def _is_impure_call(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in IMPURE_CALLS
    return isinstance(function, ast.Attribute) and function.attr in IMPURE_METHODS


def environment_reads(root: Path) -> list[str]:
    """Uses of os.environ or os.getenv outside the settings modules and the entry points."""
    return [
        f"{module}:{line}: {what}"
        for module, path in modules(root)
        if not matches(module, MAY_READ_ENVIRONMENT)
        for line, what in _environment_uses(ast.parse(path.read_text()))
    ]


def _environment_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    names = {"environ", "environb", "getenv", "putenv"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os":
            yield node.lineno, f"os.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from ((node.lineno, f"from os import {a.name}") for a in node.names if a.name in names)
