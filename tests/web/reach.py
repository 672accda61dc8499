# SPDX-License-Identifier: Apache-2.0
"""What people need who cannot see well, or use no mouse: axe's rules, and a keyboard that reaches everything."""

from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page

AXE: Final = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
STEPS_MAX: Final = 120
_RUN: Final = "async (chosen) => (await axe.run(document, { resultTypes: ['violations'], ...chosen })).violations"
_COLOURS: Final = {"runOnly": ["color-contrast", "link-in-text-block"]}
_FOCUS: Final = """
async () => {
  // What moves when it gets the focus has moved a frame later.
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  const on = document.activeElement;
  const style = getComputedStyle(on), box = on.getBoundingClientRect();
  const name = on.getAttribute('aria-label') ?? on.labels?.[0]?.textContent ?? on.textContent;
  return {
    name: name.replace(/\\s+/g, ' ').trim(),
    tag: on.tagName,
    seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    inside: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
  };
}
"""


def axe() -> str:
    """The script to give to a page before its own."""
    assert AXE.is_file(), "axe-core is not there: run `make setup-test`, which builds the web pages"
    return AXE.read_text()


def violations(page: Page) -> list[str]:
    """Rule, and which elements, in the page's state of now, in light and in dark colours."""
    page.emulate_media(color_scheme="light")
    light = _violations(page, {})
    page.emulate_media(color_scheme="dark")
    return light + [f"dark: {one}" for one in _violations(page, _COLOURS)]


def _violations(page: Page, chosen: dict[str, Any]) -> list[str]:
    found: list[dict[str, Any]] = page.evaluate(_RUN, chosen)
    return [
        f"{one['id']} ({one['help']}): {node['html'][:160]} {_data(node)}" for one in found for node in one["nodes"]
    ]


def _data(node: dict[str, Any]) -> str:
    return "; ".join(str(check["message"]) for check in node["any"][:1])


def focus(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(_FOCUS)
    return found


def tab_to(page: Page, name: str, *, key: str = "Tab") -> None:
    """Along everything that can have the focus, which must be seen to have it, until `name` has it."""
    passed = []
    for _ in range(STEPS_MAX):
        page.keyboard.press(key)
        now = focus(page)
        if now["tag"] != "BODY":
            assert now["seen"], f"nobody sees that {now} has the focus"
            assert now["inside"], f"{now} has the focus, and is not in sight"
        if now["name"].startswith(name):
            return
        passed.append(now["name"][:40])
    raise AssertionError(f"{name!r} is not reached by {key}; passed {passed}")
