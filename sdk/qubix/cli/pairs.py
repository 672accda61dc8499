# SPDX-License-Identifier: Apache-2.0
"""`-i NAME=FILE` and `-p NAME=VALUE`. Pure."""

from collections.abc import Iterable

from qubix.errors import BadUsage
from qubix_protocol.messages import ParamValue

_WORDS = {"true": True, "false": False}


def split(option: str, pairs: Iterable[str]) -> dict[str, str]:
    """Raises `BadUsage` on a pair without `=` or a name given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise BadUsage(option, f"{option} {pair}: not of the form NAME=VALUE", f"Write {option} name=value")
        if name in found:
            raise BadUsage(option, f"{option} {name} is given twice", "Give it once")
        found[name] = value
    return found


def param_value(text: str) -> ParamValue:
    """A whole number, a number, true or false, or else text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
