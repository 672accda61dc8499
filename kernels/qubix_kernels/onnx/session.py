# SPDX-License-Identifier: Apache-2.0
"""A session of onnxruntime on exactly one provider, and proof that it is the one that computes.

onnxruntime falls back to the CPU without a word: when a provider is missing, when it cannot start, and for each
operator that it lacks. All three are looked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnxruntime
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from qubix_kernels.kernel import NotInstalled
from qubix_kernels.onnx import work
from qubix_kernels.onnx.refusal import Refused
from qubix_protocol.arrays import Array

CPU: Final = "CPUExecutionProvider"
_QUIET: Final = 4
_CHECK: Final = "onnx.checker.check_model(model, full_check=True) says more; export it anew"
_TRY: Final = "run it with onnxruntime on the very same inputs, and give what it takes"


class NoProvider(NotInstalled):
    """The provider that was asked for is not the one that would compute."""


class Session:
    """A loaded model. `run` takes and gives arrays by the model's own names."""

    def __init__(
        self, data: bytes, provider: str, provider_options: Mapping[str, str], *, plain: bool = False, profile: str = ""
    ) -> None:
        """`plain` runs the graph as it is, without optimisation; `profile` is where to write what was run.

        Raises `NoProvider`, and `Refused` when the model cannot be loaded on the CPU.
        """
        require(provider)
        self.provider: Final = provider
        try:
            self._session = onnxruntime.InferenceSession(
                data, _options(plain, profile), providers=[(provider, dict(provider_options))]
            )
        except Exception as error:
            raise self._said(error, "cannot_load", "the model cannot be loaded", _CHECK) from error
        self._session.disable_fallback()
        _verify_provider(self._session, provider)
        self._outputs: Final = [output.name for output in self._session.get_outputs()]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(feed)), strict=True))
        except Exception as error:
            raise self._said(error, "cannot_run", "the model cannot be run on these inputs", _TRY) from error

    def profile(self) -> str:
        """Ends profiling; the path of what was written."""
        return str(self._session.end_profiling())

    def _said(self, error: Exception, code: str, what: str, remedy: str) -> Exception:
        """On the CPU an error is the model's, or memory's; elsewhere it may be the device's."""
        text = str(error)
        if isinstance(error, MemoryError) or "bad_alloc" in text or "Failed to allocate memory" in text:
            return MemoryError(text[:500])
        if self.provider == CPU:
            return Refused(code, f"{what}: {text[:500]}", remedy)
        return RuntimeError(f"{what}: {text[:500]}")


def require(provider: str) -> None:
    """Raises `NoProvider` when this onnxruntime was built without it."""
    has = onnxruntime.get_available_providers()
    if provider not in has:
        raise NoProvider(f"this onnxruntime has no {provider}, only {', '.join(has)}: install the package that has it")


def _options(plain: bool, profile: str) -> onnxruntime.SessionOptions:
    found = onnxruntime.SessionOptions()
    found.intra_op_num_threads, found.inter_op_num_threads = threads(), 1
    found.log_severity_level = _QUIET
    found.use_deterministic_compute = True
    level = onnxruntime.GraphOptimizationLevel
    found.graph_optimization_level = level.ORT_DISABLE_ALL if plain else level.ORT_ENABLE_ALL
    found.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    found.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile:
        # Weights that were packed for the processor are missing from what is written.
        found.add_session_config_entry("session.disable_prepacking", "1")
        found.enable_profiling, found.profile_file_prefix = True, profile
    return found


def threads() -> int:
    """As many as BLAS may use: the worker's limit stands in its environment, which BLAS has read."""
    return max([1, *(int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas")])


def _verify_provider(session: onnxruntime.InferenceSession, provider: str) -> None:
    used = session.get_providers()
    if used[:1] != [provider]:
        raise NoProvider(f"{provider} was asked for, onnxruntime uses {', '.join(used)}")
    placed = [
        (group.ep_name, node.op_type)
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]
    astray = misplaced(placed, provider)
    if astray:
        raise NoProvider(f"{provider} was asked for, but {', '.join(astray)} would run elsewhere")


def misplaced(placed: Sequence[tuple[str, str]], provider: str) -> list[str]:
    """Heavy operators that were given to another provider; all of them, when the provider asked for got nothing."""
    elsewhere = {kind for where, kind in placed if where != provider}
    if placed and not any(where == provider for where, _ in placed):
        return sorted(elsewhere)
    return sorted(elsewhere & work.HEAVY)


def shapes_of(found: Any) -> tuple[work.Shape, ...]:
    """Of one entry of a profile: `[{"float": [1, 3]}, …]`."""
    return tuple(tuple(int(size) for size in shape) for entry in found for shape in entry.values())
