# SPDX-License-Identifier: Apache-2.0
"""libp2p's logs, demoted: it calls every failed dial an error and every closed connection a warning."""

import logging

log = logging.getLogger("qubix_mesh.libp2p")


class _Demote(logging.Handler):
    """Passes each record on at DEBUG, so that nothing is lost and nothing shouts."""

    def emit(self, record: logging.LogRecord) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("mesh.libp2p", extra={"logger": record.name, "text": record.getMessage()})


def _not_from_libp2p(record: logging.LogRecord) -> bool:
    """Parts of libp2p log on the root logger: its filter sees exactly the records made there."""
    return "/libp2p/" not in record.pathname.replace("\\", "/")


def tame_libp2p() -> None:
    """Safe to call again."""
    libp2p = logging.getLogger("libp2p")
    libp2p.propagate = False
    logging.getLogger("libp2p.network.auto_connector").setLevel(logging.NOTSET)
    if not any(isinstance(handler, _Demote) for handler in libp2p.handlers):
        libp2p.addHandler(_Demote())
    root = logging.getLogger()
    if _not_from_libp2p not in root.filters:
        root.addFilter(_not_from_libp2p)
