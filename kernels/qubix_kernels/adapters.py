# SPDX-License-Identifier: Apache-2.0
"""What wgpu finds on this machine, asked in a process of its own: `python -m qubix_kernels.adapters` writes it as JSON.

Drivers are loaded for this, which may print, hang or crash: so it never happens in the process that asks.
"""

import os
from typing import Final, Literal

import msgspec

Kind = Literal["discrete", "integrated", "software", "unknown"]


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """One way to one card: a card that two drivers know, or two interfaces, is here twice. Numbers are PCI's, 0 where
    they are not told. `buffer_bytes`: the largest buffer it makes."""

    name: str
    maker: str = ""
    driver: str = ""
    kind: Kind = "unknown"
    api: str = ""
    vendor_id: int = 0
    device_id: int = 0
    buffer_bytes: int = 0


_KINDS: Final[dict[str, Kind]] = {
    "DiscreteGPU": "discrete",
    "IntegratedGPU": "integrated",
    "CPU": "software",
}


def decode(data: bytes) -> list[Adapter]:
    """Raises msgspec's errors."""
    return msgspec.json.decode(data, type=list[Adapter])


def look() -> list[Adapter]:
    from qubix_kernels.webgpu import adapters

    found = []
    for one in adapters():
        info, limits = one.info, one.limits
        found.append(
            Adapter(
                name=info["device"],
                maker=info["vendor"],
                driver=info["description"],
                kind=_KINDS.get(info["adapter_type"], "unknown"),
                api=info["backend_type"],
                vendor_id=int(info["vendor_id"]),
                device_id=int(info["device_id"]),
                buffer_bytes=int(limits["max-buffer-size"]),
            )
        )
    return found


def main() -> None:
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what a driver prints must not get into the answer
        out.write(msgspec.json.encode(look()))


if __name__ == "__main__":
    main()
