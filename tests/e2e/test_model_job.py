# SPDX-License-Identifier: Apache-2.0
"""A model as a job on real processes: uploaded, run in a node's box, checked in the verifier's, paid (R4.3)."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import qubix
from qubix_protocol.states import AttemptState, JobState
from tests.e2e.test_main_job import audit, client, offers, settled, until
from tests.kernels.models_world import dense
from tests.kernels.real_inputs import file_labels, file_model, file_tokens, real_files
from tests.support.market import Market


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    """One for both: a short, reachable path, since sockets have short names."""
    folder = Path(tempfile.mkdtemp(prefix="qx-"))
    try:
        with Market(folder) as running:
            running.start_node()
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_files_are_told_apart_by_a_model_in_the_market(market: Market) -> None:
    files, labels = real_files(), file_labels()
    tokens = np.stack([file_tokens(data) for data in files.values()])
    with client(market) as api:
        until(offers(api, 1))
        estimate = api.estimate("onnx", model=file_model(), bytes=tokens)
        assert estimate.units == len(files)
        job = api.submit_model(file_model(), {"bytes": tokens}, cap_qu=5_000)
        fractions = [update.fraction for update in job.follow()]
        assert fractions == sorted(fractions)
        scores = job.result()["target_label"]
        assert [labels[row.argmax()] for row in scores] == list(files)
        view = job.refresh()
        settled(view)
        assert view.paid_qu >= 1
        (attempt,) = view.attempts
        assert (attempt.state, attempt.backend) == (AttemptState.ACCEPTED, "cpu")
        (receipt,) = job.receipts()
        assert receipt.settlement.units_accepted == len(files)
    audit(market)


def test_a_job_whose_signature_understates_its_model_ends_with_the_reason(market: Market) -> None:
    """Otherwise a provider would be paid for a hundredth of its work."""
    model = dense(np.random.default_rng(1), (256, 512, 16))
    x = np.random.default_rng(2).standard_normal((64, 256), dtype=np.float32)
    with client(market) as api:
        until(offers(api, 1))
        honest = api.submit_model(model, {"x": x}, cap_qu=500)
        assert honest.result()["y"].shape == (64, 16)
        text = str(honest.view.params["signature"])
        start, stop = text.index('"flops":') + 8, text.index(',"bytes_moved"')
        less = f"{text[:start]}{float(text[start:stop]) / 100}{text[stop:]}"
        job = api.submit("onnx", model=model, x=x, signature=less, cap_qu=500)
        with pytest.raises(qubix.JobFailed, match="operations, the signature says"):
            job.result()
        assert job.refresh().state is JobState.FAILED
        assert job.view.paid_qu == 0
    audit(market)


@pytest.mark.slow  # test_main_job has a wrong result daily, and the check of models is test_kernels_onnx_verify's
def test_outputs_of_other_inputs_are_not_paid_and_the_job_completes_elsewhere(market: Market) -> None:
    files, labels = real_files(), file_labels()
    tokens = np.stack([file_tokens(data) for data in files.values()])
    market.start_node("cheat", "tests.support.cheating_node", QUBIX_NODE_RATE_QU_PER_H="1000", CHEAT="zeros")
    cheater = market.parts["cheat"].info["peer_id"]
    with client(market) as api:
        until(offers(api, 2))
        job = api.submit_model(file_model(), {"bytes": tokens}, cap_qu=5_000)
        scores = job.result()["target_label"]
        assert [labels[row.argmax()] for row in scores] == list(files)
        view = job.refresh()
        settled(view)
        (rejected,) = (attempt for attempt in view.attempts if attempt.provider == cheater)
        assert (rejected.state, rejected.paid_qu) == (AttemptState.REJECTED, 0)
    audit(market)
