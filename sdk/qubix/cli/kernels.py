# SPDX-License-Identifier: Apache-2.0
"""`qubix kernels`."""

from collections.abc import Iterator
from typing import Any

import click

from qubix.cli.output import json_option, market, print_json, print_pairs, print_table
from qubix.errors import BadUsage


@click.group()
def kernels() -> None:
    """What the market can run."""


@kernels.command("list")
@json_option
def list_kernels(as_json: bool) -> None:
    """Every kernel with its arrays and parameters."""
    with market() as client:
        found = client.kernels()
    if as_json:
        print_json(found)
        return
    columns = ("kernel", "takes", "parameters", "gives", "what it does")
    print_table(columns, [_row(spec) for spec in found])


@kernels.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """One kernel in full."""
    with market() as client:
        found = {str(spec["name"]): spec for spec in client.kernels()}
    if name not in found:
        raise BadUsage("NAME", f"there is no kernel {name!r}", f"There are: {', '.join(sorted(found))}")
    if as_json:
        print_json(found[name])
    else:
        print_pairs(list(_pairs(found[name])))


def _pairs(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "kernel", f"{spec['name']}, version {spec['version']}"
    yield "what it does", f"{spec['title']}. {spec['doc']}"
    for title, key in (("inputs", "inputs"), ("parameters", "params"), ("outputs", "outputs")):
        if spec.get(key):
            yield title, _text(spec[key])
    if spec.get("open"):
        yield "arrays", "a model's own, as its signature names them"
    yield "back ends", ", ".join(spec["backends"])
    yield (
        "result",
        "checked before anybody is paid" if spec["verifier"] else "nobody can check it: you accept or dispute",
    )


def _row(spec: dict[str, Any]) -> list[str]:
    takes, params, gives = (_names(spec[key]) for key in ("inputs", "params", "outputs"))
    if spec.get("open"):
        takes, gives = f"{takes}, and its own", "its own"
    return [spec["name"], takes, params, gives, spec["title"]]


def _names(found: list[dict[str, Any]]) -> str:
    return ", ".join(one["name"] for one in found)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "\n".join(_text(one) for one in value)
    if isinstance(value, dict):
        return "  ".join(f"{key} {_flat(one)}" for key, one in value.items() if one not in (None, "", [], ()))
    return str(value)


def _flat(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
