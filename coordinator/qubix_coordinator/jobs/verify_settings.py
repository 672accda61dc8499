# SPDX-License-Identifier: Apache-2.0
"""What the verifier can be told from outside: the coordinator's settings, and how much it does at once."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from qubix_coordinator.settings import EXIT_BAD_SETTINGS, Settings, read_text, refuse_barriers
from qubix_kernels.box.machine import WISHES
from qubix_protocol.settings import SettingsError, load, read_config, setting, tables


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSettings(Settings):
    verifier_parallel: int = setting(
        "QUBIX_VERIFIER_PARALLEL", "Checks that one verifier process does at a time.", 1, minimum=1, maximum=256
    )
    verifier_models: int = setting(
        "QUBIX_VERIFIER_MODELS",
        "Models that one verifier process describes at a time, beside its checks; 0: none.",
        1,
        minimum=0,
        maximum=64,
    )
    verifier_model_deadline_s: float = setting(
        "QUBIX_VERIFIER_MODEL_DEADLINE_S",
        "Seconds in which a model must be read and two units of it run, or it is refused as too slow.",
        45.0,
        minimum=1,
        maximum=600,
    )
    verifier_threads: int = setting(
        "QUBIX_VERIFIER_THREADS", "Threads of one check's arithmetic.", 1, minimum=1, maximum=256
    )
    verifier_box: str = setting(
        "QUBIX_VERIFIER_BOX",
        "The box around checks: auto (where this machine can make one, else limited child processes), require (do not"
        " start without), or limited (never).",
        "auto",
        choices=WISHES,
    )
    verifier_deadline_s: float = setting(
        "QUBIX_VERIFIER_DEADLINE_S", "Seconds after which a check is given up.", 60.0, minimum=1, maximum=3600
    )


def from_mappings(env: Mapping[str, str], toml: Mapping[str, object]) -> VerifierSettings:
    """The coordinator's table with the verifier's own on top: both read the same database and artifacts."""
    settings = load(VerifierSettings, env, tables(toml, "coordinator", "verifier"))
    refuse_barriers(settings)
    return settings


def from_environment_or_exit() -> VerifierSettings:
    """A bad setting is one line on standard error and exit status 2."""
    try:
        return from_mappings(os.environ, read_config(os.environ, read_text))
    except SettingsError as problem:
        print(f"qubix: {problem}", file=sys.stderr)
        raise SystemExit(EXIT_BAD_SETTINGS) from None
