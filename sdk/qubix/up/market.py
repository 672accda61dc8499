# SPDX-License-Identifier: Apache-2.0
"""Which parts make up a market on one machine, and what each is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from qubix.errors import StartFailed
from qubix.processes import command
from qubix.up.supervisor import Env, Part

GATEWAY_TOKEN_FILE: Final = "gateway.token"  # noqa: S105  a file's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`port` 0 takes a free one. Without a rate the node asks its own default."""

    data_dir: Path
    port: int
    rate_qu_per_h: int | None = None
    node: bool = True
    browser: bool = False
    """Open the page once the market is ready."""

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"


def environment(plan: Plan, outside: Mapping[str, str]) -> dict[str, str]:
    """What every part is told: all that `qubix up` was told itself, and where this market lives."""
    told = {"QUBIX_DATA_DIR": str(plan.data_dir), "QUBIX_HTTP_PORT": str(plan.port)}
    if plan.rate_qu_per_h is not None:
        told["QUBIX_NODE_RATE_QU_PER_H"] = str(plan.rate_qu_per_h)
    dropped = {"QUBIX_READY_FD", "QUBIX_COORDINATOR_URL", "QUBIX_BOOTSTRAP", "QUBIX_GATEWAY_TOKEN", "QUBIX_TOKEN"}
    return {name: value for name, value in outside.items() if name not in dropped} | told


def parts(plan: Plan, outside: Mapping[str, str]) -> list[Part]:
    """In the order in which they start. Raises `StartFailed` when one is not installed."""

    def gateway_env(env: Env, last: Env) -> dict[str, str]:
        return {"QUBIX_GATEWAY_TOKEN": _token(plan.data_dir / GATEWAY_TOKEN_FILE)} | _listen_again(last)

    found = [
        Part(name="coordinator", command=command("coordinator"), env=_same_port, exports=_coordinator),
        Part(name="gateway", command=command("gateway"), env=gateway_env, exports=_gateway),
        Part(name="verifier", command=command("verifier")),
        Part(name="chain", command=command("chain")),
    ]
    if not outside.get("QUBIX_QUBIC_URL"):
        # A market of another network has no devnet: its settings refuse that, and say what is needed instead.
        devnet_env = partial(_devnet_port, plan, outside)
        found.insert(0, Part(name="devnet", command=command("devnet"), env=devnet_env, exports=_devnet))
    if not outside.get("DATABASE_URL"):
        found.insert(0, Part(name="database", command=command("database"), exports=_database))
    if plan.node:
        found.append(Part(name="node", command=command("node")))
    return found


def _database(info: dict[str, Any]) -> dict[str, str]:
    return {"DATABASE_URL": str(info["database_url"])}


def _devnet(info: dict[str, Any]) -> dict[str, str]:
    return {"QUBIX_QUBIC_URL": str(info["url"])}


def _devnet_port(plan: Plan, outside: Mapping[str, str], env: Env, last: Env) -> dict[str, str]:
    """Its own default, so that wallets find it; a free one where the market's port is; the same when started again."""
    known = urlsplit(last.get("QUBIX_QUBIC_URL", "")).port
    if known is not None:
        return {"QUBIX_DEVNET_PORT": str(known)}
    return {"QUBIX_DEVNET_PORT": "0"} if plan.port == 0 and not outside.get("QUBIX_DEVNET_PORT") else {}


def _coordinator(info: dict[str, Any]) -> dict[str, str]:
    url = str(info["url"]).rstrip("/")
    return {"QUBIX_COORDINATOR_URL": url, "QUBIX_HTTP_PORT": str(urlsplit(url).port or 80)}


def _same_port(env: Env, last: Env) -> dict[str, str]:
    """A coordinator that is started again answers where it is known, also when its port was a free one."""
    return {name: last[name] for name in ("QUBIX_HTTP_PORT",) if name in last}


def _listen_again(last: Env) -> dict[str, str]:
    """The same for a gateway: nodes come back by themselves."""
    known = last.get("QUBIX_BOOTSTRAP", "")
    return {"QUBIX_GATEWAY_LISTEN": ",".join(one.partition("/p2p/")[0] for one in known.split(","))} if known else {}


def _gateway(info: dict[str, Any]) -> dict[str, str]:
    return {"QUBIX_BOOTSTRAP": ",".join(map(str, info["addresses"]))}


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as problem:
        raise StartFailed(
            f"cannot read {path}: {problem.strerror}",
            remedy="The coordinator writes it at its first start; see its log.",
        ) from None


def where_it_runs(part: str, info: Mapping[str, Any]) -> str:
    """What a person wants to know of a part's ready line, without secrets."""
    if part == "database":
        return _without_password(str(info.get("database_url", "")))
    if part == "devnet":
        return f"{info.get('url', '')}  devnet, play money, tick {info.get('tick', '')}"
    if part == "coordinator":
        return str(info.get("url", ""))
    if part == "chain":
        return f"pays from {info.get('identity', '')}"
    if part == "gateway":
        return ", ".join(map(str, info.get("addresses", ())))
    if part == "node":
        return f"{', '.join(map(str, info.get('titles', ())))}  {info.get('peer_id', '')}".strip()
    return ""


def _without_password(url: str) -> str:
    found = urlsplit(url)
    if not found.password:
        return url
    return url.replace(f":{found.password}@", ":…@", 1)
