# SPDX-License-Identifier: Apache-2.0
"""The page's session in a cookie, which other pages cannot use (trust A2), and the files under its policy."""

import gzip
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from quart import Quart
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from qubix_coordinator.accounts.rules import Scope
from qubix_coordinator.db.database import Database
from qubix_coordinator.http import cookies, pages, problems
from qubix_coordinator.http.server import relay_of
from qubix_coordinator.settings import Settings
from tests.chain.vectors import SEED, VECTORS
from tests.db.support_http import Running, make_person, served
from tests.support.wallet_double import ExtensionWallet

pytestmark = pytest.mark.asyncio
IDENTITY = VECTORS["keys"][0]["identity"]


@pytest_asyncio.fixture
async def running(db: Database, tmp_path: Path) -> AsyncIterator[Running]:
    async with served(db, tmp_path) as found:
        yield found


class Page:
    """A browser's page of the server itself."""

    def __init__(self, http: httpx.AsyncClient, token: str) -> None:
        self.http, self.token, self.csrf = http, token, ""
        self.origin = str(http.base_url).rstrip("/")

    async def begin(self) -> httpx.Response:
        answer = await self.http.post("/api/v1/session", json={"token": self.token}, headers={"Origin": self.origin})
        if answer.status_code == 201:
            self.csrf = answer.json()["csrf"]
        return answer

    def headers(self, **changed: str) -> dict[str, str]:
        sent = {"Origin": self.origin, cookies.CSRF_HEADER: self.csrf} | changed
        return {name: value for name, value in sent.items() if value}

    async def write(self, **changed: str) -> httpx.Response:
        """Something that changes the account: ends its other sessions."""
        return await self.http.request("DELETE", "/api/v1/sessions", headers=self.headers(**changed))


@pytest_asyncio.fixture
async def page(running: Running) -> AsyncIterator[Page]:
    person = await make_person(running.db, Scope.USER)
    async with httpx.AsyncClient(base_url=running.url, timeout=30) as http:
        yield Page(http, person.token)


async def test_a_token_goes_in_once_and_no_script_can_read_it(page: Page) -> None:
    answer = await page.begin()
    assert answer.status_code == 201
    said = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in said.split(";")}
    assert "Secure" not in said, "there is no TLS on this machine's own address"
    assert page.token not in answer.text
    assert (await page.http.get("/api/v1/account")).status_code == 200
    again = (await page.http.get("/api/v1/session")).json()
    assert again["csrf"] == page.csrf
    assert again["account"]["account_id"] == answer.json()["account"]["account_id"]


async def test_elsewhere_the_cookie_needs_tls() -> None:
    assert "Secure" in cookies.made("t", "market.example:8600")
    assert "Secure" not in cookies.made("t", "127.0.0.1:8600")
    assert "Secure" not in cookies.made("t", "[::1]:8600")


async def test_a_wrong_token_makes_no_cookie(page: Page) -> None:
    page.token = "qx_nobody"
    answer = await page.begin()
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Origin", ""),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "null"),
        ("Origin", "https://evil.example"),
        (cookies.CSRF_HEADER, ""),
        (cookies.CSRF_HEADER, "0" * 64),
        (cookies.CSRF_HEADER, "\u00e9"),
    ],
)
async def test_a_write_of_another_page_is_refused(page: Page, name: str, value: str) -> None:
    await page.begin()
    assert (await page.write()).status_code == 200
    sent = page.headers()
    sent.pop(name)
    raw = [(key.encode(), text.encode("latin-1")) for key, text in ({**sent, name: value} if value else sent).items()]
    answer = await page.http.request("DELETE", "/api/v1/sessions", headers=raw)
    assert answer.status_code == 403
    assert answer.json()["remedy"]


@pytest.mark.parametrize("origin", ["", "http://127.0.0.1:1", "null"])
async def test_nobody_else_can_sign_a_browser_in(page: Page, origin: str) -> None:
    headers = {"Origin": origin} if origin else {}
    answer = await page.http.post("/api/v1/session", json={"token": page.token}, headers=headers)
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


async def test_a_token_in_the_header_counts_before_the_cookie_and_needs_no_proof(page: Page) -> None:
    await page.begin()
    headers = {"Authorization": f"Bearer {page.token}"}
    assert (await page.http.request("DELETE", "/api/v1/sessions", headers=headers)).status_code == 200
    wrong = {"Authorization": "Bearer qx_nobody"}
    assert (await page.http.get("/api/v1/account", headers=wrong)).status_code == 401


async def test_nobody_is_signed_in_without_a_cookie_or_by_one_that_is_over(page: Page) -> None:
    answer = await page.http.get("/api/v1/session")
    assert (answer.status_code, answer.json()) == (200, {"account": None, "csrf": ""})
    assert "Set-Cookie" not in answer.headers
    over = {"Cookie": f"{cookies.NAME}=qx_nobody"}
    answer = await page.http.get("/api/v1/session", headers=over)
    assert answer.json()["account"] is None
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert (await page.http.get("/api/v1/offers", headers=over)).status_code == 200
    assert (await page.http.get("/api/v1/account", headers=over)).status_code == 401
    wrong = {"Authorization": "Bearer qx_nobody"}
    assert (await page.http.get("/api/v1/session", headers=wrong)).status_code == 401


async def test_a_cookie_that_is_over_makes_a_visitor_of_the_feed(running: Running, page: Page) -> None:
    sent = {"Cookie": f"{cookies.NAME}=qx_nobody", "Origin": page.origin}
    async with connect(f"{running.ws}/live", additional_headers=sent) as feed:
        await feed.send('{"subscribe": ["market"]}')
        assert "snapshot" in str(await feed.recv())
    async with connect(f"{running.ws}/live", additional_headers=sent) as feed:
        await feed.send('{"subscribe": ["account"]}')
        assert "unauthorised" in str(await feed.recv())


async def test_signing_out_ends_a_wallets_session_and_leaves_other_tokens(running: Running, page: Page) -> None:
    await page.begin()
    ended = await page.http.request("DELETE", "/api/v1/session", headers=page.headers())
    assert ended.status_code == 200
    assert "Max-Age=0" in ended.headers["Set-Cookie"]
    assert (await page.http.get("/api/v1/account")).status_code == 401
    own = {"Authorization": f"Bearer {page.token}"}
    assert (await page.http.get("/api/v1/account", headers=own)).status_code == 200

    wallet = ExtensionWallet(SEED)
    await wallet.connect()
    said = (await page.http.post("/api/v1/wallet/challenge", json={"identity": IDENTITY})).json()["text"]
    signature = (await wallet.signMessage(said))["signatureHex"]
    body = {"identity": IDENTITY, "text": said, "signature": signature, "scheme": "raw"}
    page.token = (await page.http.post("/api/v1/wallet/sign-in", json=body)).json()["token"]
    await page.begin()
    assert (await page.http.request("DELETE", "/api/v1/session", headers=page.headers())).status_code == 200
    stolen = {"Authorization": f"Bearer {page.token}"}
    assert (await page.http.get("/api/v1/account", headers=stolen)).status_code == 401


async def test_the_live_feed_takes_the_cookie_from_our_own_page_alone(running: Running, page: Page) -> None:
    await page.begin()
    address = running.url.replace("http://", "ws://") + "/live"
    sent = {"Cookie": f"{cookies.NAME}={page.token}"}
    async with connect(address, additional_headers={**sent, "Origin": page.origin}) as feed:
        await feed.send('{"subscribe": ["account"]}')
        assert "snapshot" in str(await feed.recv())
    for origin in ("http://127.0.0.1:1", ""):
        more = {"Origin": origin} if origin else {}
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            async with connect(address, additional_headers={**sent, **more}) as feed:
                await feed.recv()


def _app(folder: Path) -> Quart:
    app = Quart(__name__, static_folder=None)
    problems.install(app)
    pages.install(app, folder)
    return app


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>QUBIX</title>")
    (tmp_path / "assets" / "index-abc.js").write_text("export default 1;")
    (tmp_path / "assets" / "index-abc.js.gz").write_bytes(gzip.compress(b"export default 1;"))
    (tmp_path / "favicon.svg").write_text("<svg/>")
    (tmp_path.parent / "secret.txt").write_text("not yours")
    return tmp_path


async def test_the_policy_names_a_relay_where_walletconnect_is_offered_and_nowhere_else(built: Path) -> None:
    relay = ""
    app = Quart(__name__, static_folder=None)
    pages.install(app, built, lambda: relay)
    for relay in ("", "wss://relay.example"):
        answer = await app.test_client().get("/wallet")
        rules = answer.headers["Content-Security-Policy"].split("; ")
        assert [one for one in rules if one.startswith("connect-src")] == [f"connect-src 'self' {relay}".strip()]
    offered = Settings(walletconnect_project_id="0123", walletconnect_relay=relay)
    assert (relay_of(offered), relay_of(replace(offered, walletconnect_project_id=""))) == (relay, "")


@pytest.mark.parametrize("path", ["/", "/offers/2f1c", "/jobs", "/wallet"])
async def test_every_page_is_the_one_document_under_the_strict_policy(built: Path, path: str) -> None:
    answer = await _app(built).test_client().get(path)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    script = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert script == "script-src 'self'"
    assert answer.headers["Cache-Control"] == "no-cache"


async def test_files_are_compressed_for_who_takes_it_and_kept_for_good(built: Path) -> None:
    client = _app(built).test_client()
    packed = await client.get("/assets/index-abc.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(await packed.get_data()) == b"export default 1;"
    plain = await client.get("/assets/index-abc.js")
    assert "Content-Encoding" not in plain.headers
    assert await plain.get_data() == b"export default 1;"
    for answer in (packed, plain):
        assert answer.mimetype in ("text/javascript", "application/javascript")
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", ["/assets/none.js", "/assets/..%2f..%2fsecret.txt", "/assets/%2e%2e", "/nowhere"])
async def test_no_other_file_is_served(built: Path, path: str) -> None:
    answer = await _app(built).test_client().get(path)
    assert answer.status_code == 404
    assert b"not yours" not in await answer.get_data()


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/nowhere", BROWSER, "text/html"),
        ("/of/old/pages", BROWSER, "text/html"),
        ("/nowhere", "*/*", "application/problem+json"),
        ("/nowhere", "application/json", "application/problem+json"),
        ("/api/v1/nowhere", BROWSER, "application/problem+json"),
    ],
)
async def test_a_person_at_an_old_address_gets_a_page_and_a_program_a_problem(
    built: Path, path: str, accept: str, kind: str
) -> None:
    answer = await _app(built).test_client().get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.mimetype) == (404, kind)
    assert ("Content-Security-Policy" in answer.headers) is (kind == "text/html")
    posted = await _app(built).test_client().post(path, headers={"Accept": accept})
    assert posted.mimetype == "application/problem+json"


async def test_pages_that_are_not_built_say_how_to_build_them(tmp_path: Path) -> None:
    answer = await _app(tmp_path).test_client().get("/")
    assert answer.status_code == 503
    assert b"make setup" in await answer.get_data()
