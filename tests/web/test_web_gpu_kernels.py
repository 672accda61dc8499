# SPDX-License-Identifier: Apache-2.0
"""The kernels as a tab runs them: results that the verifiers accept, refusals, and cards that go away.

Chromium computes on the processor here; the shaders and all that is around them are those of a card.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from playwright.sync_api import Page, Route

from qubix_protocol.messages import KernelRate
from qubix_protocol.selftest import Check, CheckStatus
from tests.kernels.conformance import mandelbrot, matmul, montecarlo_option, subjects
from tests.kernels.conformance.world import Job
from tests.support import web_gpu
from tests.support.browser import Browsers, Tabs
from tests.support.web_gpu import Failed, Worker

KERNELS = ("matmul", "mandelbrot", "montecarlo_option")
RUNS = 4
RUNS_SLOW = 120
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("worker")
    web_gpu.build(folder)
    with web_gpu.served(folder) as url:
        yield url


@pytest.fixture(scope="module")
def tab(browsers: Browsers, address: str) -> Iterator[Callable[..., Page]]:
    """Opens pages; whatever one complains of fails the module."""
    tabs = Tabs(browsers, address)

    def opened(*, shader: tuple[str, str] | None = None, prelude: str = "") -> Page:
        page = tabs.open(gpu=True)
        if shader is not None or prelude:
            _change_worker(page, *(shader or ("", "")), prelude)
        page.goto("/index.html")
        page.wait_for_function("window.conformance")
        return page

    yield opened
    tabs.close()
    assert tabs.unexpected() == []


def _change_worker(page: Page, old: str, new: str, prelude: str) -> None:
    """What the worker is made of, with one part of it changed, or something done first."""

    def changed(route: Route) -> None:
        answer = route.fetch()
        text = answer.text()
        assert not old or text.count(old) == 1
        route.fulfill(response=answer, body=f"{prelude}\n{text.replace(old, new) if old else text}")

    page.route(re.compile(r"/assets/worker-.*\.js$"), changed)


@pytest.fixture(scope="module")
def worker(tab: Callable[..., Page]) -> Worker:
    return Worker(tab())


def _takes(job: Job) -> bool:
    """WGSL has no float64."""
    return all(array.dtype != np.float64 for array in job.inputs.values())


def _judged(worker: Worker, kernel: str, job: Job, seed: int, *, near: bool) -> str:
    """What is wrong with the tab's outputs: of the whole, and of its second half run as a chunk."""
    units = job.units
    for start, stop in ((0, units), (units // 2, units)):
        found = worker.run(kernel, job.inputs, job.params, (start, stop))
        part = job.part(start, stop)
        verdict = part.verdict(found, seed)
        if not verdict.accepted:
            return f"{verdict.reason}: {verdict.detail}"
        if near and (wrong := subjects()[kernel].wrong(part, found)):
            return wrong
    return ""


@pytest.mark.parametrize("kernel", KERNELS)
def test_odd_sizes_are_computed_within_rounding(kernel: str, worker: Worker) -> None:
    jobs = [job for make in subjects()[kernel].edges if _takes(job := make())]
    assert len(jobs) > 3
    assert [_judged(worker, kernel, job, seed, near=True) for seed, job in enumerate(jobs)] == [""] * len(jobs)


def _random(worker: Worker, kernel: str, seeds: range) -> list[tuple[int, str]]:
    wrong = []
    for seed in seeds:
        job = subjects()[kernel].random(np.random.default_rng(seed))
        if _takes(job) and (problem := _judged(worker, kernel, job, seed, near=False)):
            wrong.append((seed, problem))
    return wrong


@pytest.mark.parametrize("kernel", KERNELS)
def test_results_of_a_tab_are_accepted(kernel: str, worker: Worker) -> None:
    assert _random(worker, kernel, range(RUNS)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_results_of_a_tab_are_accepted_in_many_runs(kernel: str, worker: Worker) -> None:
    assert _random(worker, kernel, range(RUNS, RUNS + RUNS_SLOW)) == []


@pytest.mark.parametrize(
    ("kernel", "make"),
    [
        ("matmul", lambda: matmul.job(70, 1030, 261, 5)),
        ("mandelbrot", lambda: mandelbrot.job(300, 96, max_iterations=2000)),
        ("montecarlo_option", lambda: montecarlo_option.job(300, 16_384)),
    ],
)
def test_a_job_of_many_pieces_is_computed_within_rounding(kernel: str, make: Callable[[], Job], worker: Worker) -> None:
    assert _judged(worker, kernel, make(), 0, near=True) == ""


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda a: a.astype(np.float64), "unsupported"),
        (lambda a: np.where(a == a[1, 1], np.float32(np.nan), a), "bad_input"),
        (lambda a: np.where(a == a[1, 1], np.float32(-np.inf), a), "bad_input"),
        (lambda a: a * np.float32(1e38), "bad_input"),
    ],
)
@pytest.mark.parametrize("name", ["a", "b"])
def test_what_cannot_be_computed_is_refused(
    name: str, make: Callable[[np.ndarray], np.ndarray], code: str, worker: Worker
) -> None:
    job = matmul.job(5, 7, 6)
    with np.errstate(all="ignore"):
        inputs = {**job.inputs, name: make(job.inputs[name])}
    with pytest.raises(Failed) as refused:
        worker.run("matmul", inputs, {}, (0, 5))
    assert refused.value.code == code


def test_a_kernel_that_has_no_shader_is_refused(worker: Worker) -> None:
    with pytest.raises(Failed) as refused:
        worker.run("knn", {}, {}, (0, 1))
    assert refused.value.code == "unsupported"


def test_a_run_is_stopped_between_pieces_and_the_next_one_runs(worker: Worker) -> None:
    job = mandelbrot.job(4096, 4096, left=-0.2, top=0.2, pixel=1e-4, max_iterations=65_535)
    done, told = worker.page.evaluate(
        """async (asked) => {
          const control = new AbortController();
          let done = 0;
          const begun = (part) => { done = part; control.abort(); };
          const told = await conformance.told(conformance.gpu.run(...asked, control.signal, begun));
          return [done, told];
        }""",
        ["mandelbrot", dict(job.params), {}, {"start": 0, "stop": job.units}],
    )
    assert told["failed"] == "aborted"
    assert 0 < done < 0.5
    assert _judged(worker, "mandelbrot", mandelbrot.job(13, 7), 0, near=True) == ""


def test_the_self_test_says_what_was_found_in_the_protocols_words(worker: Worker) -> None:
    told = worker.ask(
        "(async () => { const heard = []; const all = await gpu.selfTest((one) => heard.push(one), conformance.alone); "
        "return { heard, all }; })()"
    )
    assert told["heard"] == told["all"]
    checks = msgspec.convert(told["all"], tuple[Check, ...])
    status = {check.id: check.status for check in checks}
    passed = ("limits", *(f"kernel_{kernel}_webgpu" for kernel in KERNELS), "rates")
    assert {name: status[name] for name in passed} == dict.fromkeys(passed, CheckStatus.PASS)
    assert status["webgpu"] is CheckStatus.WARN, "a processor that poses as a card is told as one"
    assert status["bandwidth"] is status["clock"] is CheckStatus.SKIP
    assert all(check.remedy for check in checks if check.status in (CheckStatus.WARN, CheckStatus.FAIL))
    info = worker.ask("gpu.info()")
    assert info["fallback"] is True
    assert info["memoryBytes"] > 0


def test_rates_are_measured_for_each_kernel(worker: Worker) -> None:
    rates = msgspec.convert(worker.ask("gpu.rates()"), tuple[KernelRate, ...])
    assert [rate.kernel for rate in rates] == list(KERNELS)
    assert all(rate.flops_per_s > 1e7 and rate.backend == "webgpu" for rate in rates)


@pytest.mark.parametrize(
    ("kernel", "change"),
    [
        ("matmul", ("l3 += a3.w * bl", "l3 += a3.w * br")),
        pytest.param("mandelbrot", ("zr = squares_r - squares_i + cr", "zr = squares_r - squares_i + ci"), marks=SLOW),
        pytest.param("montecarlo_option", ("0.5 * square", "0.49 * square"), marks=SLOW),
    ],
)
def test_a_card_that_computes_wrongly_fails_its_self_test(
    kernel: str, change: tuple[str, str], tab: Callable[..., Page]
) -> None:
    page = tab(shader=change)
    checks = Worker(page).ask("gpu.selfTest(() => undefined, conformance.alone)")
    failed = [check["id"] for check in checks if check["status"] == "fail"]
    page.context.close()
    assert failed == [f"kernel_{kernel}_webgpu"]


_LOSES = """
let opened = 0;
const open = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...asked) {
  const device = await open.apply(this, asked);
  opened += 1;
  if (opened > TIMES) return device;
  const submit = device.queue.submit.bind(device.queue);
  let submitted = 0;
  device.queue.submit = (...work) => {
    submitted += 1;
    if (submitted === 2) device.destroy();
    submit(...work);
  };
  return device;
};
"""
"""A worker whose first cards go away at their second piece."""


def _in_pieces() -> Job:
    return matmul.job(70, 1030, 261, 5)


def test_a_chunk_is_computed_anew_on_the_card_that_comes_after_one_that_was_lost(tab: Callable[..., Page]) -> None:
    page = tab(prelude=_LOSES.replace("TIMES", "1"))
    assert _judged(Worker(page), "matmul", _in_pieces(), 0, near=True) == ""
    page.context.close()


def test_a_card_that_is_lost_twice_is_told_with_what_to_do(tab: Callable[..., Page]) -> None:
    page = tab(prelude=_LOSES.replace("TIMES", "2"))
    job = _in_pieces()
    with pytest.raises(Failed) as lost:
        Worker(page).run("matmul", job.inputs, job.params, (0, job.units))
    assert lost.value.code == "device_lost"
    assert lost.value.remedy
    assert _judged(Worker(page), "mandelbrot", mandelbrot.job(13, 7), 0, near=True) == ""
    page.context.close()


@pytest.mark.parametrize(
    ("prelude", "code"),
    [
        ("Object.defineProperty(navigator, 'gpu', { value: undefined });", "unsupported_browser"),
        ("GPU.prototype.requestAdapter = async () => null;", "no_adapter"),
        (
            "GPU.prototype.requestAdapter = async () => { throw new DOMException('by policy', 'SecurityError'); };",
            "refused",
        ),
        (
            "GPUAdapter.prototype.requestDevice = async () => { throw new DOMException('no', 'OperationError'); };",
            "refused",
        ),
    ],
)
def test_why_there_is_no_card_is_told_with_what_to_do(prelude: str, code: str, tab: Callable[..., Page]) -> None:
    page = tab(prelude=prelude)
    with pytest.raises(Failed) as missing:
        Worker(page).ask("gpu.info()")
    page.context.close()
    assert missing.value.code == code
    assert missing.value.remedy


@pytest.mark.slow
def test_chromium_loses_its_process_for_the_card(tab: Callable[..., Page]) -> None:
    """As when a driver fails: whatever page had a card loses it."""
    page = tab()
    page.evaluate("""async () => {
      const device = await (await navigator.gpu.requestAdapter()).requestDevice();
      conformance.lost = () => device.lost.then((told) => told.reason);
    }""")
    assert _judged(Worker(page), "mandelbrot", mandelbrot.job(13, 7), 0, near=True) == ""
    own = psutil.Process().children(recursive=True)
    cards = [one for one in own if "--type=gpu-process" in one.cmdline()]
    assert cards
    for one in cards:
        one.kill()
    assert page.evaluate("conformance.lost()") == "unknown"
    assert _judged(Worker(page), "matmul", _in_pieces(), 0, near=True) == ""
    page.context.close()


def test_the_references_are_those_of_the_kernels() -> None:
    """Written by `make docs`. Numbers may differ by what another NumPy rounds otherwise."""
    references = web_gpu.references()
    kept, fresh = msgspec.json.decode(Path(references.FILE).read_bytes()), references.document()
    assert [_plain(one) for one in kept["references"]] == [_plain(one) for one in fresh["references"]]
    for old, new in zip(kept["references"], fresh["references"], strict=True):
        for name, bounds in new["outputs"].items():
            for side, packed in bounds.items():
                found, wanted = (references.unpacked(one) for one in (old["outputs"][name][side], packed))
                np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert [_plain(one) for one in kept["examples"]] == [_plain(one) for one in fresh["examples"]]
    for size in ("flops", "bytes_moved"):
        assert [one[size] for one in kept["examples"]] == pytest.approx(
            [one[size] for one in fresh["examples"]], rel=1e-3
        )


def _plain(told: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in told.items() if name not in ("outputs", "flops", "bytes_moved")}
