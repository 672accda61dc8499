# SPDX-License-Identifier: Apache-2.0
"""Models: dense layers elsewhere (other threads, batches and optimisations), and outputs of something else."""

import functools
from typing import Any

import numpy as np
import onnxruntime

from tests.kernels.conformance.cheats import of_other_job
from tests.kernels.conformance.world import Array, Job, Outputs, Rng, Subject
from tests.kernels.models_world import ModelJob, dense

WIDTH = 24


def job(seed: int = 0, rows: int = 12, sizes: tuple[int, ...] = (WIDTH, 48, 16), dtype: Any = "float32") -> Job:
    rng = np.random.default_rng(seed)
    made = ModelJob.of(dense(rng, sizes, dtype), x=rng.standard_normal((rows, sizes[0])).astype(dtype))
    return Job.of("onnx", made.inputs, **made.params)


def outputs_of(asked: Job, level: Any, threads: int, step: int) -> Outputs:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.graph_optimization_level = threads, 4, level
    run = onnxruntime.InferenceSession(asked.inputs["model"].tobytes(), options, providers=["CPUExecutionProvider"]).run
    x = asked.inputs["x"]
    return {"y": np.concatenate([run(["y"], {"x": x[i : i + step]})[0] for i in range(0, len(x), step)])}


LEVELS = onnxruntime.GraphOptimizationLevel
ELSEWHERE = [
    functools.partial(outputs_of, level=LEVELS.ORT_DISABLE_ALL, threads=1, step=1),
    functools.partial(outputs_of, level=LEVELS.ORT_ENABLE_BASIC, threads=2, step=3),
    functools.partial(outputs_of, level=LEVELS.ORT_ENABLE_ALL, threads=1, step=5),
]


def layers(asked: Job) -> list[Array]:
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(asked.inputs["model"].tobytes())
    return [numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer]


def wrong(asked: Job, outputs: Outputs) -> str:
    x = asked.inputs["x"].astype(np.float64)
    for weights in layers(asked):
        x = np.tanh(x @ weights)
    off = np.abs(outputs["y"] - x).max()
    return "" if off <= 64 * np.finfo(outputs["y"].dtype).eps else f"{off} off"


def random(rng: Rng) -> Job:
    sizes = [(WIDTH, 16), (WIDTH, 48, 16), (WIDTH, 64, 64, 64, 8)][rng.integers(3)]
    return job(int(rng.integers(1 << 30)), int(rng.integers(1, 10)), sizes)


def half_inputs(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    x = asked.inputs["x"].astype(np.float16).astype(np.float32)
    return Job(asked.kernel, {**asked.inputs, "x": x}, asked.params).run()


def columns_swapped(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["y"][:, [0, 1]] = outputs["y"][:, [1, 0]]
    return outputs


def rounded(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {"y": np.round(outputs["y"], 3)}


def without_last_step(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {"y": np.arctanh(np.clip(outputs["y"], -0.999, 0.999)).astype(np.float32)}


def only_the_largest(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """The right class, and nothing of how sure the model is."""
    y = np.zeros_like(outputs["y"])
    y[np.arange(len(y)), outputs["y"].argmax(axis=1)] = 1
    return {"y": y}


trial = functools.partial(job, 5, 240)

SUBJECT = Subject(
    edges=[
        lambda: job(rows=1),
        lambda: job(rows=13, sizes=(WIDTH, 7)),
        lambda: job(rows=7, sizes=(WIDTH, 31, 5), dtype="float64"),
        lambda: job(rows=5, sizes=(1, 1)),
    ],
    random=random,
    wrong=wrong,
    elsewhere=ELSEWHERE,
    trial=trial,
    complete=functools.partial(job, 5, 6),
    cheats={
        "inputs in float16": half_inputs,
        "two columns swapped": columns_swapped,
        "rounded to 1/1,000": rounded,
        "the last step left out": without_last_step,
        "only the largest": only_the_largest,
        "another model, other inputs": of_other_job(functools.partial(job, 6, 240)),
    },
    small_cheats={},
    simulated=False,
)
