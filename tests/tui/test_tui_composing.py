# SPDX-License-Identifier: Apache-2.0
"""What was typed for a job: forms, parameters, caps; inputs that are links; a forecast in words."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from qubix.errors import BadUsage
from qubix_kernels import get
from qubix_protocol.api import EstimateView, ObstacleView
from qubix_protocol.arrays import ArrayMeta
from qubix_tui import composing
from qubix_tui.fetched import fetched
from tests.tui.api import candidate

CONTENT = b"x" * 5_000


@pytest.fixture
def url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith("/a.npy")
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(CONTENT) if found else 0))
            self.end_headers()
            self.wfile.write(CONTENT if found else b"")

        def log_message(self, *words: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.asyncio
async def test_a_link_is_fetched_whole_or_not_at_all(url: str, tmp_path: Path) -> None:
    path = await fetched(f"{url}/a.npy", tmp_path / "inputs", field="input-a")
    assert (path.read_bytes(), path.suffix) == (CONTENT, ".npy")
    with pytest.raises(BadUsage, match="404") as missing:
        await fetched(f"{url}/b.npy", tmp_path / "inputs", field="input-a")
    assert missing.value.field == "input-a"
    with pytest.raises(BadUsage, match="larger than 4,999 bytes"):
        await fetched(f"{url}/a.npy?again", tmp_path / "inputs", field="input-a", limit_bytes=len(CONTENT) - 1)
    assert [one.name for one in (tmp_path / "inputs").iterdir()] == [path.name], "nothing of what failed is left"


def test_arrays_are_files_or_links_or_forms() -> None:
    spec = get("matmul").spec
    found = composing.inputs_of(spec, {"input-a": "~/a.npy", "input-b": "float32[3, 2]"})
    assert found == {"a": "~/a.npy", "b": ArrayMeta("float32", (3, 2))}
    assert composing.path_of("~/a.npy") == Path.home() / "a.npy"
    assert composing.inputs_of(spec, {"input-a": "float16[8×4]", "input-b": "x"})["a"] == ArrayMeta("float16", (8, 4))
    assert [composing.is_link(text) for text in ("https://x/a.npy", "http:/x", "a.npy")] == [True, False, False]


def test_a_model_takes_inputs_by_its_own_names() -> None:
    spec = get("onnx").spec
    assert [one.name for one in composing.lines(spec)] == ["input-model", "more"], "its signature is written by the SDK"
    found = composing.inputs_of(spec, {"input-model": "m.onnx", "more": "images=i.npy sr=s.npy"})
    assert found == {"model": "m.onnx", "images": "i.npy", "sr": "s.npy"}
    with pytest.raises(BadUsage, match="'images' is not of the form NAME=FILE"):
        composing.inputs_of(spec, {"input-model": "m.onnx", "more": "images"})


@pytest.mark.parametrize("text", ["", "0", "-5", "many", "5.5", "٣", "1e3"])
def test_a_cap_is_a_whole_number_of_qu(text: str) -> None:
    with pytest.raises(BadUsage):
        composing.cap_of({"cap": text})


def test_terms_are_those_that_were_typed() -> None:
    assert composing.cap_of({"cap": "1,000_000"}) == 1_000_000
    assert composing.terms_of({"cap": "7", "where": "price<5", "deadline": "2"}) == {
        "cap_qu": 7,
        "where": "price<5",
        "deadline_s": 120,
    }
    assert composing.terms_of({"cap": "7", "rental": "some"})["cap_qu"] is None


def test_a_forecast_says_who_could_and_why_the_others_could_not() -> None:
    first = candidate("a", "NVIDIA H100", 60_000)
    waits = msgspec.structs.replace(candidate("b", "NVIDIA A100", 30_000), waiting="it is busy", affordable=False)
    obstacle = ObstacleView(obstacle="memory", why="it has too little memory", offers=1)
    found = EstimateView(
        candidates=(first, waits),
        flops=1.0,
        units=1,
        output={},
        check_flops=0.1,
        fee_bps=250,
        fitting=12,
        obstacles=(obstacle,),
        cap_least_qu=19,
    )
    lines = composing.forecast(found, 70, most=2)
    assert max(map(len, lines)) <= 70
    assert "2.1–2.8 s" in lines[1]
    assert lines[3:] == [
        "  it is busy; ✗ above your balance",
        "Each cost holds the market's 2.5 %, which pays the check.",
        "and 10 more",
        "1 device does not fit: it has too little memory",
        "A cap of 19 QU or more is enough for some device.",
    ]
    nobody = EstimateView(candidates=(), flops=1.0, units=1, output={})
    assert composing.forecast(nobody, 70) == ["Nobody in the market can run it now."]
