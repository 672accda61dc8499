# SPDX-License-Identifier: Apache-2.0
"""The wallet's passphrase for scripts: from a setting, a private file or an open file descriptor."""

import os

from qubix.errors import BadUsage
from qubix.files import read_private
from qubix.settings import Settings

_BYTES_MAX = 4096


def given(settings: Settings) -> str | None:
    """None where nothing is set: then a person is asked. Raises `BadUsage`, `KeyFileRefused`."""
    sources = [settings.wallet_passphrase_fd, settings.wallet_passphrase_file, settings.wallet_passphrase or None]
    if sum(source is not None for source in sources) > 1:
        raise BadUsage(
            "QUBIX_WALLET_PASSPHRASE",
            "the passphrase is given in more than one way",
            "Set one of QUBIX_WALLET_PASSPHRASE, QUBIX_WALLET_PASSPHRASE_FILE and QUBIX_WALLET_PASSPHRASE_FD.",
        )
    if settings.wallet_passphrase_fd is not None:
        return _line("QUBIX_WALLET_PASSPHRASE_FD", _from_fd(settings.wallet_passphrase_fd))
    if settings.wallet_passphrase_file is not None:
        content = read_private(settings.wallet_passphrase_file)
        if content is None:
            raise BadUsage(
                "QUBIX_WALLET_PASSPHRASE_FILE",
                f"there is no file {settings.wallet_passphrase_file}",
                "Name a file of your own with the passphrase on its only line.",
            )
        return _line("QUBIX_WALLET_PASSPHRASE_FILE", content)
    return settings.wallet_passphrase or None


def _from_fd(descriptor: int) -> bytes:
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(_BYTES_MAX + 1)
    except OSError as problem:
        raise BadUsage(
            "QUBIX_WALLET_PASSPHRASE_FD",
            f"file descriptor {descriptor} cannot be read ({problem.strerror})",
            "Open it for reading before this command starts, as in: 3<passphrase",
        ) from None


def _line(source: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\n\n"
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or "\n" in line or len(content) > _BYTES_MAX:
        raise BadUsage(
            source, f"{source} does not give one line of text", "Put the passphrase there, and nothing else."
        )
    return line
