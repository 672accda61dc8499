# SPDX-License-Identifier: Apache-2.0
"""The design's tokens: a name that nothing defines is taken by a browser as if the line were not there."""

import re
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "web" / "src"


def test_every_custom_property_that_a_style_uses_is_defined() -> None:
    texts = [path.read_text() for kind in ("css", "svelte", "ts") for path in sorted(SOURCES.rglob(f"*.{kind}"))]
    used = {name for text in texts for name in re.findall(r"var\((--[a-z0-9-]+)", text)}
    defined = {name for text in texts for name in re.findall(r"(--[a-z0-9-]+)=?\s*:", text)}
    assert used
    assert used - defined == set()
