# SPDX-License-Identifier: Apache-2.0
"""Models from Python and from the command line: tried here, sent by the wire's names, given back by the model's own."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

import qubix
from qubix import models
from qubix.async_client import AsyncClient
from qubix.cli import main
from qubix.errors import BadUsage
from qubix_kernels.onnx.signature import Signature, decode
from qubix_protocol.arrays import ArrayMeta, from_npy
from qubix_protocol.models import ModelState, ModelView
from tests.kernels.models_world import F32, made
from tests.support.fake_api import TOKEN, FakeApi

X = np.random.default_rng(1).standard_normal((5, 6), dtype=np.float32)
SCALE = np.array([2.0], np.float32)
FLOATS = (F32, ["n", 6])


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as found:
        yield found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Input.1 (n, 6) and scale (1,) → Out/1, and the index of its largest."""
    nodes = [
        helper.make_node("Mul", ["Input.1", "scale"], ["Out/1"]),
        helper.make_node("ArgMax", ["Out/1"], ["best"], axis=1, keepdims=0),
    ]
    outputs = {"Out/1": FLOATS, "best": (TensorProto.INT64, ["n"])}
    path = tmp_path / "scaling.onnx"
    path.write_bytes(made(nodes, {"Input.1": FLOATS, "scale": (F32, [1])}, outputs).SerializeToString())
    return path


def client(api: FakeApi, folder: Path) -> qubix.Client:
    return qubix.Client(api.url, token=TOKEN, data_dir=folder)


def answer(api: FakeApi, job_id: str) -> None:
    api.settle(job_id, [(0, 5, {"out_1": 2 * X, "best": X.argmax(axis=1)})])


def signature_of(api: FakeApi, job_id: str) -> Signature:
    return decode(str(api.jobs[job_id].params["signature"]))


def test_a_model_is_sent_with_its_signature_and_gives_back_its_own_names(
    api: FakeApi, model: Path, tmp_path: Path
) -> None:
    with client(api, tmp_path) as market:
        job = market.submit_model(model, {"Input.1": X, "scale": SCALE}, cap_qu=100)
        found = signature_of(api, job.id)
        assert {name: one.name for name, one in found.inputs.items()} == {"input_1": "Input.1", "scale": "scale"}
        assert [name for name, one in found.inputs.items() if one.whole] == ["scale"]
        assert set(job.view.inputs) == {"model", "input_1", "scale"}
        answer(api, job.id)
        result = job.result()
    assert set(result) == {"Out/1", "best"}
    np.testing.assert_array_equal(result["Out/1"], 2 * X)


@pytest.mark.parametrize("how", ["path", "text", "bytes", "array"])
def test_a_model_is_a_file_or_its_bytes(api: FakeApi, model: Path, tmp_path: Path, how: str) -> None:
    data = model.read_bytes()
    given: Any = {"path": model, "text": str(model), "bytes": data, "array": np.frombuffer(data, np.uint8)}[how]
    with client(api, tmp_path) as market:
        job = market.submit("onnx", model=given, inputs={"Input.1": X}, scale=SCALE, cap_qu=100)
    (sent,) = [
        found for found in (from_npy(bytes(one.content)) for one in api.uploads.values()) if found.dtype == np.uint8
    ]
    assert sent.tobytes() == data
    assert job.view.inputs["model"] == ArrayMeta("uint8", (len(data),))


def test_inputs_may_be_files_and_are_not_read_whole(api: FakeApi, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    with client(api, tmp_path) as market:
        job = market.submit_model(model, {"Input.1": tmp_path / "x.npy", "scale": SCALE}, cap_qu=100)
    assert job.view.inputs["input_1"] == ArrayMeta("float32", (5, 6))


def test_the_awaited_client_does_the_same(api: FakeApi, model: Path, tmp_path: Path) -> None:
    async def scene() -> set[str]:
        async with AsyncClient(api.url, token=TOKEN, data_dir=tmp_path) as market:
            job = await market.submit_model(model, {"Input.1": X, "scale": SCALE}, cap_qu=100)
            answer(api, job.id)
            return set(await job.result())

    assert asyncio.run(scene()) == {"Out/1", "best"}


def test_a_signature_from_elsewhere_is_taken_as_it_is(api: FakeApi, model: Path, tmp_path: Path) -> None:
    given, _ = models.prepared({"model": model, "Input.1": X, "scale": SCALE}, {})
    with client(api, tmp_path) as market:
        job = market.submit("onnx", model=model, input_1=X, scale=SCALE, signature=given["signature"], cap_qu=100)
    assert api.jobs[job.id].params["signature"] == given["signature"]


def test_forms_are_enough_for_an_estimate(model: Path) -> None:
    given, forms = models.prepared({"model": model, "scale": SCALE}, {"Input.1": ArrayMeta("float32", (10**6, 6))})
    assert forms == {"input_1": ArrayMeta("float32", (10**6, 6))}
    assert decode(given["signature"]).inputs["input_1"].shape == (6,)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "Input.1 is missing"),
    ({"Input.1": X, "scale": SCALE, "more": X}, "takes nothing named 'more'"),
    ({"Input.1": X.astype(np.float64), "scale": SCALE}, "convert it"),
    ({"Input.1": X[:, :3], "scale": SCALE}, "the model takes (?, 6)"),
    ({"Input.1": Path("none.npy"), "scale": SCALE}, "none.npy"),
]


@pytest.mark.parametrize(("inputs", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_a_model_does_not_take_is_said_before_anything_is_sent(
    api: FakeApi, model: Path, tmp_path: Path, inputs: dict[str, Any], said: str
) -> None:
    with client(api, tmp_path) as market, pytest.raises(BadUsage) as refused:
        market.submit_model(model, inputs, cap_qu=100)
    assert said in str(refused.value)
    assert refused.value.remedy
    assert not api.jobs


@pytest.mark.parametrize(
    ("given", "said"), [("none.onnx", "No such file"), (b"text", "not an ONNX model"), (3, "no model")]
)
def test_what_is_no_model_is_said(api: FakeApi, tmp_path: Path, given: Any, said: str) -> None:
    with client(api, tmp_path) as market, pytest.raises(BadUsage, match=said):
        market.submit_model(given, {"x": X}, cap_qu=100)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_onnxruntime_it_says_what_to_install(model: Path, missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from qubix import models, errors\n"
        "try: models.prepared({'model': sys.argv[1], 'x': 1.0}, {})\n"
        "except errors.BadUsage as error: print(error, error.remedy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"{missing} is not installed" in done.stdout
    assert 'pip install "qubix[worker]"' in done.stdout


# By the market --------------------------------------------------------------------------------------------------------


def test_the_market_describes_a_model_and_what_is_given_to_it(api: FakeApi, model: Path, tmp_path: Path) -> None:
    with client(api, tmp_path) as market:
        found = market.describe_model(model, {"Input.1": X, "scale": SCALE})
        assert found.state is ModelState.DESCRIBED
        assert found.card is not None
        assert [port.name for port in found.card.outputs] == ["Out/1", "best"]
        assert found.work is not None
        assert (found.work.units, found.work.zeros) == (5, False)
        forms = market.describe_model(model, {"Input.1": ArrayMeta("float32", (10**6, 6)), "scale": SCALE})
        assert forms.work is not None
        assert (forms.work.units, forms.work.zeros) == (10**6, True)
        bare = market.describe_model(model.read_bytes())
        assert bare.state is ModelState.DESCRIBED
    assert len(api.uploads) == 3, "nothing is sent twice"


def test_the_awaited_client_is_told_of_a_refusal(api: FakeApi, tmp_path: Path) -> None:
    async def scene() -> ModelView:
        async with AsyncClient(api.url, token=TOKEN, data_dir=tmp_path) as market:
            return await market.describe_model(b"no model at all")

    found = asyncio.run(scene())
    assert found.state is ModelState.REFUSED
    assert found.refusal is not None
    assert found.refusal.code == "not_a_model"


def test_without_onnxruntime_a_job_is_made_of_the_markets_description(
    api: FakeApi, model: Path, tmp_path: Path
) -> None:
    """In a process of its own, which cannot import it."""
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import numpy as np, qubix\n"
        "url, token, folder, model, x = sys.argv[1:]\n"
        "given = {'Input.1': x, 'scale': np.array([2.0], np.float32)}\n"
        "with qubix.Client(url, token=token, data_dir=folder) as market:\n"
        "    print(market.submit_model(model, given, cap_qu=100, whole=['scale']).id)\n"
        "    try: market.submit_model(b'no model', given, cap_qu=100)\n"
        "    except qubix.BadUsage as error: print(error, error.remedy)"
    )
    np.save(tmp_path / "x.npy", X)
    words = [api.url, TOKEN, str(tmp_path), str(model), str(tmp_path / "x.npy")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, timeout=60)
    job_id, refused = done.stdout.splitlines()
    given, _ = models.prepared({"model": model, "Input.1": X, "scale": SCALE, "whole": ["scale"]}, {})
    assert api.jobs[job_id].params["signature"] == given["signature"], "as if it had been tried there"
    assert set(api.jobs[job_id].inputs) == {"model", "input_1", "scale"}
    assert "this is not an ONNX model" in refused
    assert "give the .onnx file" in refused
    assert len(api.jobs) == 1


# The command line -----------------------------------------------------------------------------------------------------


def command(api: FakeApi, folder: Path, *words: str) -> Result:
    env = {"QUBIX_COORDINATOR_URL": api.url, "QUBIX_TOKEN": TOKEN, "QUBIX_DATA_DIR": str(folder / "data")}
    return CliRunner().invoke(main, list(words), env=env)


def test_a_model_from_the_command_line_and_its_outputs_as_files(api: FakeApi, model: Path, tmp_path: Path) -> None:
    for name, array in (("x", X), ("scale", SCALE)):
        np.save(tmp_path / f"{name}.npy", array)
    words = ["-i", f"Input.1={tmp_path / 'x.npy'}", "-i", f"scale={tmp_path / 'scale.npy'}", "--model", str(model)]
    sent = command(api, tmp_path, "job", "submit", "onnx", *words, "--whole", "scale", "--cap", "100", "--json")
    assert sent.exit_code == 0, sent.output
    job_id = json.loads(sent.output)["job_id"]
    answer(api, job_id)
    out = tmp_path / "out"
    fetched = command(api, tmp_path, "job", "result", job_id, "-o", str(out))
    assert fetched.exit_code == 0, fetched.output
    assert sorted(path.name for path in out.iterdir()) == ["best.npy", "out_1.npy"]
    np.testing.assert_array_equal(np.load(out / "out_1.npy"), 2 * X)
    shown = command(api, tmp_path, "job", "show", job_id)
    assert "characters)" in shown.output, "a signature is shown by its beginning"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cap", "5"], "needs the model"),
        (["--cap", "5", "--model", "none.onnx"], "none.onnx"),
        (["--cap", "5", "--model", "{model}"], "Input.1 is missing"),
    ],
)
def test_bad_usage_of_a_model_exits_2(api: FakeApi, model: Path, tmp_path: Path, words: list[str], said: str) -> None:
    found = command(api, tmp_path, "job", "submit", "onnx", *(word.format(model=model) for word in words))
    assert found.exit_code == 2, found.output
    assert said in found.output


def test_no_output_s_name_leads_out_of_the_folder(api: FakeApi, tmp_path: Path) -> None:
    name = "../../evil"
    path = tmp_path / "m.onnx"
    path.write_bytes(made([helper.make_node("Relu", ["x"], [name])], {"x": FLOATS}, {name: FLOATS}).SerializeToString())
    with client(api, tmp_path / "data") as market:
        job = market.submit_model(path, {"x": X}, cap_qu=100)
    (wire,) = signature_of(api, job.id).outputs
    api.settle(job.id, [(0, 5, {wire: np.maximum(X, 0)})])
    fetched = command(api, tmp_path, "job", "result", job.id, "-o", str(tmp_path / "deep" / "out"))
    assert fetched.exit_code == 0, fetched.output
    assert [one.name for one in (tmp_path / "deep" / "out").iterdir()] == ["t_______evil.npy"]


def test_a_model_is_described_on_the_command_line(api: FakeApi, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    words = ["models", "describe", str(model), "-i", f"Input.1={tmp_path / 'x.npy'}"]
    missing = command(api, tmp_path, *words)
    assert missing.exit_code == 1, missing.output
    assert "cannot be run" in missing.output
    assert "scale is missing" in missing.output
    np.save(tmp_path / "scale.npy", SCALE)
    words += ["-i", f"scale={tmp_path / 'scale.npy'}"]
    found = command(api, tmp_path, *words)
    assert found.exit_code == 0, found.output
    for said in ("can be run", "Input.1", "(n, 6)", "Out/1", "ai.onnx 17", "5 of 5 rows"):
        assert said in found.output, found.output
    told = json.loads(command(api, tmp_path, *words, "--whole", "scale", "--json").output)
    assert told["state"] == "described"
    assert decode(told["work"]["signature"]).inputs["scale"].whole
