# SPDX-License-Identifier: Apache-2.0
"""A consumer's own ONNX model, run over a batch. notes.md has the reasoning."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from qubix_kernels.kernel import (
    Arrays,
    ArraySpec,
    Cost,
    Kernel,
    KernelSpec,
    Metas,
    Params,
    ParamSpec,
    ParamValue,
    Problem,
    Verdict,
    array_problems,
    metas_of,
    no_backend,
)
from qubix_kernels.onnx import sample
from qubix_kernels.onnx.signature import MODEL, PARAM, bytes_of, decode, input_problems, of, output_metas
from qubix_protocol.arrays import Array, ArrayMeta

_MODEL_BYTES_MAX: Final = 512 * 1024**2
_START_BYTES: Final = 2 * 1024**3
"""What it takes to try and load a model, however small, in bytes that could be moved meanwhile: about a tenth of a
second. Rates are measured with it, so a short job's forecast is about as long."""
_LIBRARY_BYTES: Final = 192 * 1024**2
_MODEL_COPIES: Final = 5
"""Of the model while it is loaded: as it came, parsed twice, planned, and its weights packed."""

SPEC: Final = KernelSpec(
    name="onnx",
    version=1,
    title="AI model (ONNX)",
    doc="Runs an uploaded ONNX model over a batch; a unit is a row of it. Inputs and outputs are the model's own. "
    "Refused: data outside the file, operators beyond ai.onnx and ai.onnx.ml, random operators.",
    params=(
        ParamSpec(name=PARAM, kind="str", doc="the model's inputs, outputs and work for a unit; the SDK writes it"),
    ),
    inputs=(
        ArraySpec(
            name=MODEL,
            dims=("bytes",),
            dtypes=("uint8",),
            doc="the .onnx file, byte by byte",
            size_max=_MODEL_BYTES_MAX,
        ),
    ),
    outputs=(),
    backends=("cpu", "cuda"),
    open=True,
)


class Onnx(Kernel):
    spec = SPEC

    def run(self, backend: str, inputs: Arrays, params: Params) -> dict[str, Array]:
        if backend not in SPEC.backends:
            raise no_backend(SPEC, backend)
        if backend == "cpu":
            from qubix_kernels.onnx import cpu

            return cpu.run(inputs, of(params))
        from qubix_kernels.onnx import cuda

        return cuda.run(inputs, of(params))

    def warm_up(self, backend: str, metas: Metas, params: Params) -> None:
        """Loads the libraries: a second of work that is nobody's model."""
        if backend == "cuda":
            from qubix_kernels.onnx import cuda

            cuda.warm_up()
        elif backend == "cpu":
            from qubix_kernels.onnx import cpu  # noqa: F401  loading it is all

    def verify(self, inputs: Arrays, params: Params, outputs: Arrays, rng: np.random.Generator) -> Verdict:
        """Raises `BadInput` or what onnxruntime raises when the model cannot be run again: that is no verdict."""
        problems = self.check_outputs(metas_of(inputs), params, outputs)
        if problems:
            return Verdict(accepted=False, reason="shape", detail=f"{problems[0].field} {problems[0].problem}")
        from qubix_kernels.onnx import verify

        with np.errstate(all="ignore"):
            return verify.judge(inputs, of(params), outputs, rng)

    def cost(self, metas: Metas, params: Params, units: int) -> Cost:
        signature, model = of(params), metas[MODEL].nbytes
        arrays = bytes_of(signature.inputs, units) + bytes_of(signature.outputs, units)
        held = sum(meta.nbytes for meta in metas.values()) + bytes_of(signature.outputs, units)
        active = min(units, signature.batch) * signature.memory_bytes
        moved = _START_BYTES + _MODEL_COPIES * model + units * signature.bytes_moved + arrays
        return Cost(units * signature.flops, float(moved), _LIBRARY_BYTES + _MODEL_COPIES * model + held + active)

    def check_cost(self, metas: Metas, params: Params, units: int) -> Cost:
        return self.cost(metas, params, of(params).sample(units))

    def output_metas(self, metas: Metas, params: Params) -> dict[str, ArrayMeta]:
        return output_metas(of(params), metas)

    def subproblem(self, inputs: Arrays, params: Params, start: int, stop: int) -> tuple[dict[str, Array], Params]:
        tensors = of(params).inputs
        divided = {
            name: array[start:stop] for name, array in inputs.items() if name != MODEL and not tensors[name].whole
        }
        return {**inputs, **divided}, params

    def example(self, rng: np.random.Generator, scale: int) -> tuple[dict[str, Array], dict[str, ParamValue]]:
        return sample.example(rng, scale)

    def check_inputs(self, metas: Metas, params: Mapping[str, object]) -> Sequence[Problem]:
        model = {name: meta for name, meta in metas.items() if name == MODEL}
        found = list(array_problems(SPEC.name, SPEC.inputs, model))
        text = params.get(PARAM)
        if not isinstance(text, str):
            return found  # which is said of the parameter
        try:
            return [*found, *input_problems(decode(text), metas)]
        except ValueError as error:
            remedy = "leave it to the SDK: qubix.Client().submit_model(...), or `qubix job submit onnx --model FILE`"
            return [*found, Problem(f"params.{PARAM}", str(error), remedy)]

    def join(self, parts: Sequence[Arrays]) -> dict[str, Array]:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def own_names(self, params: Params) -> dict[str, str]:
        return {name: tensor.name for name, tensor in of(params).outputs.items()}


KERNEL: Final = Onnx()
