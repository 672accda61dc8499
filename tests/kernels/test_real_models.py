# SPDX-License-Identifier: Apache-2.0
"""Trained models out of other people's wheels, run and checked by the kernel, and right on real inputs."""

import numpy as np
import pytest

from qubix_kernels.onnx import signature
from tests.kernels import real_inputs as real
from tests.kernels.models_world import ModelJob, halved, in_wheel

SECONDS = 2.0
SILENT_MAX, SPEECH_LEAST = 0.2, 0.7


@pytest.fixture(scope="module")
def heard() -> dict[str, float]:
    """The mean probability of speech in each clip; every clip is a sequence of its own, from the same first state."""
    rng, time = np.random.default_rng(7), np.arange(int(real.RATE * SECONDS)) / real.RATE
    clips = {
        "speech": real.speech(rng, "aeiouaoieu", SECONDS),
        "other speech": real.speech(rng, "uaieoaeuioa", SECONDS),
        "noise": 0.1 * rng.standard_normal(len(time)),
        "silence": np.zeros(len(time)),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * time),
        "mains hum": 0.1 * np.sign(np.sin(2 * np.pi * 50 * time)),
    }
    windows = np.stack([real.sound_windows(clip.astype(np.float32)) for clip in clips.values()])
    state = np.zeros((1, 1, 128), np.float32)
    model = in_wheel("silero_vad", "data/silero_vad_16k_sequence.onnx").read_bytes()
    job = ModelJob.of(model, input=windows, h=state, c=state)
    found = signature.decode(job.params["signature"])
    assert (found.mode, sorted(name for name, one in found.inputs.items() if one.whole)) == ("stack", ["c", "h"])
    return dict(zip(clips, job.checked()["speech_probs"].mean(axis=1).tolist(), strict=True))


@pytest.mark.parametrize("clip", ["speech", "other speech"])
def test_speech_is_heard(heard: dict[str, float], clip: str) -> None:
    assert heard[clip] > SPEECH_LEAST


@pytest.mark.parametrize("clip", ["noise", "silence", "tone", "mains hum"])
def test_what_is_no_speech_is_not_taken_for_it(heard: dict[str, float], clip: str) -> None:
    assert heard[clip] < SILENT_MAX


def test_a_model_with_branches_state_and_a_sample_rate_gives_what_the_other_export_gives() -> None:
    """Window by window with the state carried by hand, each window a job of one unit."""
    windows = real.sound_windows(real.speech(np.random.default_rng(8), "ai", 0.4))
    model = in_wheel("silero_vad", "data/silero_vad.onnx").read_bytes()
    state, heard = np.zeros((2, 1, 128), np.float32), []
    for window in windows:
        job = ModelJob.of(model, input=window[None, None], state=state[None], sr=np.array(real.RATE, np.int64))
        found = job.checked()
        state = found["staten"][0]
        heard.append(float(found["output"][0, 0, 0]))
    whole = in_wheel("silero_vad", "data/silero_vad_16k_sequence.onnx").read_bytes()
    zero = np.zeros((1, 1, 128), np.float32)
    at_once = ModelJob.of(whole, input=windows[None], h=zero, c=zero).checked()["speech_probs"][0]
    np.testing.assert_allclose(heard, at_once, atol=1e-3)


def test_text_in_an_image_is_found_and_read() -> None:
    pages = [
        real.page(((40, 20), "Hello QUBIX 2026"), ((60, 100), "GPU market")),
        real.page(((200, 60), "jobs: 4,711 QU")),
        real.page(),
    ]
    finder, reader = (
        in_wheel("rapidocr_onnxruntime", f"models/ch_PP-OCRv4_{name}_infer.onnx").read_bytes()
        for name in ("det", "rec")
    )
    job = ModelJob.of(finder, x=np.stack([real.picture(page) for page in pages]))
    boxes = [real.boxes_of(likely[0]) for likely in job.checked()["sigmoid_0_tmp_0"]]
    assert [len(found) for found in boxes] == [2, 1, 0]
    lines = [real.line_of(page, box) for page, found in zip(pages, boxes, strict=True) for box in found]
    scores = ModelJob.of(reader, x=np.stack(lines)).checked()["softmax_11_tmp_0"]
    known = real.characters(reader)
    assert [real.text_of(one, known) for one in scores] == ["Hello QUBIX 2026", "GPU market", "jobs: 4,711 QU"]


def test_the_kind_of_a_file_is_told_from_its_bytes() -> None:
    files, labels = real.real_files(), real.file_labels()
    tokens = np.stack([real.file_tokens(data) for data in files.values()])
    scores = ModelJob.of(real.file_model().read_bytes(), bytes=tokens).checked()["target_label"]
    assert [labels[row.argmax()] for row in scores] == list(files)
    assert scores.max(axis=1).min() > 0.5


@pytest.mark.parametrize("name", ["speech", "faces", "text"])
def test_a_trained_model_at_half_the_precision_is_told_from_itself(name: str) -> None:
    """Half the memory and twice the speed on many cards: the cheat that pays best."""
    model, arrays = real.small_job(name)
    job = ModelJob.named(model, arrays)
    cheaper = ModelJob({**job.inputs, "model": np.frombuffer(halved(model), np.uint8)}, job.params)
    honest, cheap = job.run(), cheaper.run()
    assert job.verdict(honest).accepted
    assert not job.verdict(cheap).accepted


def test_a_face_is_found_where_it_is_and_none_where_none_is() -> None:
    """The astronaut's face lies about (225, 120) of 512 × 512."""
    photos = [in_wheel("skimage", f"data/{name}") for name in ("astronaut.png", "brick.png")]
    photos.append(in_wheel("sklearn", "datasets/images/china.jpg"))
    side = 256
    job = ModelJob.named(real.face_model(), {"input.1": np.stack([real.photo(path, side) for path in photos])})
    outputs = job.checked()
    score, (x, y), (width, height) = real.best_face(outputs, 0)
    assert score > 0.6
    assert abs(x - 225 * side / 512) < 12
    assert abs(y - 120 * side / 512) < 12
    assert 30 < width < 60
    assert 40 < height < 80
    assert [real.best_face(outputs, row)[0] < 0.3 for row in (1, 2)] == [True, True]
