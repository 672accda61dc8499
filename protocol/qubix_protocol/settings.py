# SPDX-License-Identifier: Apache-2.0
"""One frozen dataclass of settings per process, filled from the environment and a TOML table.

Pure: the caller passes the environment and the parsed table, so this module reads neither. A process declares

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        lease_s: float = setting("QUBIX_LEASE_S", "Seconds of silence that end an attempt.", 10.0, minimum=1)

and calls `load(Settings, os.environ, table)` once. The environment wins over the table, the table over the default.
Field types: str, int, float, bool, Path, tuple[str, ...] (comma-separated in the environment), and `T | None` of these.
"""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

T = TypeVar("T")
C = TypeVar("C", bound="AtCoordinator")
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
CONFIG = "QUBIX_CONFIG"
HTTP_PORT = 8600
"""Where a coordinator listens unless told otherwise."""
FALSE_WORDS = frozenset({"0", "false", "no", "off"})


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the variable, the problem and the remedy (exit status 2)."""

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        super().__init__(f"{name}: {problem}. {remedy}")
        self.name = name
        self.problem = problem
        self.remedy = remedy


class AtCoordinator(Protocol):
    """Settings of a process that asks a coordinator: made of `coordinator_url_setting` and `http_port_setting`."""

    @property
    def coordinator_url(self) -> str: ...
    @property
    def http_port(self) -> int: ...


class Row(NamedTuple):
    """One line of docs/settings."""

    env: str
    key: str
    type: str
    default: str
    doc: str


def setting(
    env: str,
    doc: str,
    default: object = dataclasses.MISSING,
    *,
    default_factory: Callable[[], object] | None = None,
    default_doc: str | None = None,
    choices: Sequence[object] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
) -> Any:
    """A documented field. `default_doc` is what the documentation shows when the default depends on the machine."""
    metadata = {
        "env": env,
        "doc": doc,
        "default_doc": default_doc,
        "choices": tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
        "secret": secret,
    }
    if default_factory is not None:
        return dataclasses.field(default_factory=default_factory, metadata=metadata, repr=not secret)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata, repr=not secret)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def coordinator_url_setting(doc: str) -> Any:
    """Empty stands for this machine's coordinator: `local_url`."""
    return setting("QUBIX_COORDINATOR_URL", doc, "", default_doc=f"{local_url(0)} (the port is QUBIX_HTTP_PORT)")


def http_port_setting() -> Any:
    doc = "Port of the local coordinator, where no address is set."
    return setting("QUBIX_HTTP_PORT", doc, HTTP_PORT, minimum=0, maximum=65535)


def local_url(port: int) -> str:
    """0 says nothing of where it is: it stands for any free port."""
    return f"http://127.0.0.1:{port or HTTP_PORT}"


def load(cls: type[T], env: Mapping[str, str], toml: Mapping[str, object]) -> T:
    """Raises SettingsError: a value of the wrong type or out of range, a missing one, an unknown key in `toml`."""
    fields = _fields(cls)
    unknown = sorted(set(toml) - {field.name for field in fields})
    if unknown:
        known = ", ".join(sorted(field.name for field in fields))
        raise SettingsError(unknown[0], "is not a setting of this process", f"Remove it, or use one of: {known}")
    hints = typing.get_type_hints(cls)
    values = {}
    for field in fields:
        found = _value(field, hints[field.name], env, toml)
        if found is not dataclasses.MISSING:
            values[field.name] = found
    return cls(**values)


def read_config(env: Mapping[str, str], read: Callable[[str], str]) -> Mapping[str, object]:
    """The TOML file that QUBIX_CONFIG names, or nothing; `read` gives the text of a file (so that this stays pure)."""
    path = env.get(CONFIG, "")
    if not path:
        return {}
    try:
        return tomllib.loads(read(path))
    except OSError as problem:
        raise SettingsError(CONFIG, f"{path} cannot be read ({problem.strerror})", "Name a readable file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise SettingsError(CONFIG, f"{path} is not TOML ({problem})", "Correct the line it names") from None


def tables(toml: Mapping[str, object], *names: str) -> dict[str, object]:
    """A process's tables of the whole configuration, later ones over earlier ones."""
    merged: dict[str, object] = {}
    for name in names:
        part = toml.get(name, {})
        if not isinstance(part, Mapping):
            raise SettingsError(name, "must be a table", f"Write [{name}] on a line of its own")
        merged.update(part)
    return merged


def describe(cls: type[Any]) -> list[Row]:
    """Rows for the generated documentation, in the order of declaration."""
    hints = typing.get_type_hints(cls)
    return [
        Row(f.metadata["env"], f.name, _type_name(hints[f.name]), _default_text(f), f.metadata["doc"])
        for f in _fields(cls)
    ]


def load_at_coordinator(cls: type[C], env: Mapping[str, str], toml: Mapping[str, object]) -> C:
    """`load`, with the address of the coordinator that is meant. Raises SettingsError, also for one that is none."""
    settings = load(cls, env, toml)
    url = settings.coordinator_url or local_url(settings.http_port)
    if not url.startswith(("http://", "https://")):
        raise SettingsError("QUBIX_COORDINATOR_URL", f"{url!r} is no HTTP address", "Write it as https://host")
    return cast(C, dataclasses.replace(cast(Any, settings), coordinator_url=url))


def _fields(cls: type[Any]) -> list["dataclasses.Field[Any]"]:
    found = list(dataclasses.fields(cls))
    for field in found:
        assert "env" in field.metadata, f"{cls.__name__}.{field.name} must be declared with setting()"
    return found


def _value(field: "dataclasses.Field[Any]", hint: Any, env: Mapping[str, str], toml: Mapping[str, object]) -> object:
    name = field.metadata["env"]
    if env.get(name, "") != "":
        return _checked(field, name, _from_text(name, env[name], hint))
    if field.name in toml:
        return _checked(field, field.name, _from_toml(field.name, toml[field.name], hint))
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        raise SettingsError(name, "is required and not set", f"Set {name}: {field.metadata['doc']}")
    return dataclasses.MISSING


def _bare(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _from_text(name: str, text: str, hint: Any) -> object:
    kind = _bare(hint)
    if kind is bool:
        return _flag(name, text)
    if kind is int or kind is float:
        return _number(name, text, kind)
    if kind is Path:
        return Path(text).expanduser()
    if typing.get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _from_toml(name: str, value: object, hint: Any) -> object:
    kind = _bare(hint)
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
        raise SettingsError(name, "must be a list of strings", f'Write it as {name} = ["…", "…"]')
    if kind is bool and not isinstance(value, bool):
        raise SettingsError(name, f"must be true or false, not {value!r}", "Write true or false without quotes")
    if isinstance(value, bool) and kind is not bool:
        raise SettingsError(
            name, f"must be {_type_name(hint)}, not {value!r}", f"Give a value of type {_type_name(hint)}"
        )
    if isinstance(value, bool):
        return value
    if isinstance(value, (str, int, float)):
        return _from_text(name, str(value), hint)
    raise SettingsError(name, f"must be {_type_name(hint)}, not {value!r}", f"Give a value of type {_type_name(hint)}")


def _flag(name: str, text: str) -> bool:
    word = text.strip().lower()
    if word in TRUE_WORDS | FALSE_WORDS:
        return word in TRUE_WORDS
    raise SettingsError(name, f"{text!r} is neither yes nor no", "Use 1 or 0")


def _number(name: str, text: str, kind: Callable[[str], float]) -> float:
    try:
        value = kind(text.strip().replace("_", ""))
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise SettingsError(name, f"{text!r} is not {wanted}", f"Set it to {wanted}") from None
    if not math.isfinite(value):
        raise SettingsError(name, f"{text!r} is not a finite number", "Set it to a finite number")
    return value


def _checked(field: "dataclasses.Field[Any]", name: str, value: Any) -> object:
    choices, low, high = (field.metadata[key] for key in ("choices", "minimum", "maximum"))
    if choices and value not in choices:
        raise SettingsError(name, f"{value!r} is not one of its values", "Use " + ", ".join(map(str, choices)))
    if low is not None and value < low:
        raise SettingsError(name, f"{value} is too small", f"Use at least {low:g}")
    if high is not None and value > high:
        raise SettingsError(name, f"{value} is too large", f"Use at most {high:g}")
    return value


def _type_name(hint: Any) -> str:
    kind = _bare(hint)
    if typing.get_origin(kind) is tuple:
        return "list"
    return {str: "text", int: "whole number", float: "number", bool: "yes/no", Path: "path"}.get(kind, str(kind))


def _default_text(field: "dataclasses.Field[Any]") -> str:
    if field.metadata["default_doc"] is not None:
        return str(field.metadata["default_doc"])
    if field.default is not dataclasses.MISSING:
        return _shown(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return _shown(field.default_factory())
    return "required"


def _shown(value: object) -> str:
    if value is None or value == "" or value == ():
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
