# SPDX-License-Identifier: Apache-2.0
"""One module for each kernel, which ends in SUBJECT: its jobs, its reference, what other honest back ends give, and its
cheats. `subjects()` finds them as the catalogue finds kernels; a kernel without one fails the suite."""

import functools
import importlib
import pkgutil

from tests.kernels.conformance.world import Subject


@functools.cache
def subjects() -> dict[str, Subject]:
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name not in ("world", "cheats"):
            found[module.name] = importlib.import_module(f"{__name__}.{module.name}").SUBJECT
    return found
