# SPDX-License-Identifier: Apache-2.0
"""A person's own model in a real browser: uploaded, described in the verifier's box, given inputs, run and checked; and
what the page says where that cannot be."""

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto
from playwright.sync_api import FilePayload, Locator, Page, Route, expect

from qubix_protocol.arrays import to_npy
from tests.kernels.models_world import dense
from tests.kernels.test_kernels_onnx import external
from tests.support.browser import DEADLINE_MS, PHONE, Tabs
from tests.support.web_market import Line, WebMarket
from tests.web import reach

pytestmark = pytest.mark.slow
FUNDS = 1_000_000
X = np.random.default_rng(8).standard_normal((48, 24), dtype=np.float32)
MODEL = dense(np.random.default_rng(1))


def onnx_file(data: bytes, name: str = "dense.onnx") -> FilePayload:
    return FilePayload(name=name, mimeType="application/octet-stream", buffer=data)


def model_panel(page: Page) -> Locator:
    return page.get_by_role("region", name="Kernel")


def choose(page: Page, data: bytes) -> None:
    page.get_by_label("Model file (.onnx)").set_input_files(onnx_file(data))


def open_run(market: WebMarket, tabs: Tabs, *, url: str = "", size: tuple[int, int] = (1280, 800)) -> Page:
    page = tabs.open(token=market.person(FUNDS), init=reach.axe(), url=url, size=size)
    page.goto("/run?kernel=onnx")
    expect(page.get_by_text("Drop an .onnx file here")).to_be_visible()
    return page


def test_a_model_is_uploaded_described_given_inputs_run_and_its_result_is_right(
    market: WebMarket, tabs: Tabs, tmp_path: Path
) -> None:
    market.start_node()
    page = open_run(market, tabs)
    assert not reach.violations(page)
    choose(page, MODEL)
    panel = model_panel(page)
    expect(panel.get_by_text("Can be run")).to_be_visible()
    expect(panel).to_contain_text("Parameters1.9K")
    expect(panel).to_contain_text("MatMul × 2, Tanh × 2")
    expect(panel.get_by_role("row").filter(has_text="out")).to_contain_text("[n, 16]")
    forecast = page.get_by_role("button", name="Forecast")
    expect(forecast).to_be_disabled()
    page.get_by_label("x: .npy file").set_input_files(
        FilePayload(name="x.npy", mimeType="application/octet-stream", buffer=to_npy(X))
    )
    assert not reach.violations(page)
    forecast.click()
    expect(panel).to_contain_text("16 of 48 units are run again, and compared")
    candidates = page.get_by_role("region", name="Who could run it")
    expect(candidates.get_by_role("row")).to_have_count(2)
    assert not reach.violations(page)
    page.get_by_label("Cap, QU").fill("5000")
    page.get_by_role("button", name="Run it").click()
    page.wait_for_url(re.compile("/jobs/[0-9a-f-]{36}$"))
    expect(page.get_by_text("Done and paid")).to_be_visible(timeout=2 * DEADLINE_MS)
    with page.expect_download() as result:
        page.locator("a[download='y.npy']").click()
    result.value.save_as(tmp_path / "y.npy")
    (mine,) = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"]).run(["y"], {"x": X})
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), mine, rtol=1e-4, atol=1e-5)
    expect(page.get_by_role("article", name="y float32 [48 × 16]")).to_be_visible()


def test_values_and_made_up_arrays_are_inputs_too_and_wrong_ones_say_what_is_taken(
    market: WebMarket, tabs: Tabs
) -> None:
    page = open_run(market, tabs)
    reach.tab_to(page, "Model file (.onnx)")
    choose(page, MODEL)
    expect(page.get_by_role("group", name="How x is given")).to_be_visible()
    for name in ("File", "Values", "Zeros", "Noise"):
        reach.tab_to(page, name)
    forecast = page.get_by_role("button", name="Forecast")
    ways = page.get_by_role("group", name="How x is given")
    ways.get_by_role("button", name="Values").click()
    values = page.get_by_label("x: values as a list, row by row")
    for text, said in (("[[1, 2], [3]]", "Not an array of float32"), ("[[1, 2]]", "the model takes [n, 24]")):
        values.fill(text)
        values.blur()
        expect(page.get_by_role("alert")).to_contain_text(said)
        expect(forecast).to_be_disabled()
    values.fill(str(X[:3].tolist()))
    values.blur()
    expect(page.get_by_role("alert")).to_have_count(0)
    forecast.click()
    expect(model_panel(page)).to_contain_text("3 of 3 units are run again")
    ways.get_by_role("button", name="Noise").click()
    expect(page.get_by_role("region", name="Who could run it")).to_have_count(0)
    shape = page.get_by_label("x: shape")
    expect(shape).to_have_value("8, 24")
    shape.fill("40, 24")
    shape.blur()
    forecast.click()
    expect(model_panel(page)).to_contain_text("16 of 40 units are run again")


def test_what_cannot_be_run_is_said_with_what_to_do(market: WebMarket, tabs: Tabs) -> None:
    page = open_run(market, tabs, size=PHONE)
    outside = ModelProto.FromString(MODEL)
    external(outside)
    choose(page, bytes(outside.SerializeToString()))
    panel = model_panel(page)
    expect(panel).to_contain_text("Cannot be run")
    expect(panel).to_contain_text("outside the file")
    expect(panel).to_contain_text("save_as_external_data=False")
    choose(page, b"PK\x03\x04 a zip, not a model")
    expect(panel).to_contain_text("This is not an ONNX model")
    assert not reach.violations(page)
    choose(page, b"")
    expect(page.get_by_role("alert")).to_contain_text("This file is empty")
    expect(page.get_by_role("button", name="Forecast")).to_be_disabled()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_file_that_is_too_large_is_not_read(market: WebMarket, tabs: Tabs) -> None:
    page = tabs.open(token=market.token)

    def smaller(route: Route) -> None:
        found = route.fetch()
        body = found.json()
        for one in body["kernels"]:
            if one["name"] == "onnx":
                one["inputs"][0]["size_max"] = 1000
        route.fulfill(response=found, json=body)

    page.route("**/api/v1/kernels", smaller)
    page.goto("/run?kernel=onnx")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/artifacts" in request.url else None)
    choose(page, MODEL)
    expect(page.get_by_role("alert")).to_contain_text("at most 1,000 bytes are run")
    expect(page.get_by_role("alert")).to_contain_text("divide the model")
    assert sent == []


def test_an_upload_is_stopped_and_goes_on_and_a_line_that_is_cut_is_no_end(market: WebMarket, tabs: Tabs) -> None:
    tabs.allow("WebSocket connection|ERR_|Failed to load")
    large = dense(np.random.default_rng(2), (24, 60_000, 16))
    with Line(market.url) as line:
        page = open_run(market, tabs, url=line.url)
        ranges: list[str] = []

        def hold(route: Route) -> None:
            if route.request.method != "PUT":
                return route.fallback()
            ranges.append(route.request.headers["content-range"])
            if len(ranges) == 2:
                return None  # it is on its way until the page takes it back
            return route.continue_()

        page.route("**/api/v1/artifacts/*", hold)
        choose(page, large)
        stop = page.get_by_role("button", name="Stop")
        expect(page.get_by_role("status").filter(has_text=re.compile("Uploading · [1-9]"))).to_be_visible()
        stop.click()
        expect(page.get_by_text("Stopped. What was sent is kept")).to_be_visible()
        page.unroute_all()
        line.cut()
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("alert")).to_contain_text("The market does not answer")
        line.mend()
        resumed: list[str] = []
        page.on(
            "request",
            lambda request: resumed.append(request.headers["content-range"]) if request.method == "PUT" else None,
        )
        page.get_by_role("button", name="Try again").click()
        expect(model_panel(page).get_by_text("Can be run")).to_be_visible()
    assert ranges[0].startswith("bytes 0-")
    assert resumed[0].split("-")[0] == ranges[1].split("-")[0], "what was sent is not sent again"
