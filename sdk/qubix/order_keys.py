# SPDX-License-Identifier: Apache-2.0
"""The keys that sign an account's orders. Made by `AsyncClient.order_keys`."""

from dataclasses import dataclass
from typing import Final

from qubix import signing_in, statements
from qubix.errors import BadUsage, NotGenuine
from qubix.session import Session
from qubix.signing_in import SignsText, device_name
from qubix.wallet import Wallet
from qubix_chain import identity as identities
from qubix_protocol import digests
from qubix_protocol.api import AccountView
from qubix_protocol.envelope import read_evidence
from qubix_protocol.errors import ProtocolError
from qubix_protocol.messages import OrderKeyApproval, OrderKeyRequest, OrderKeyRevocation, WalletApproval
from qubix_protocol.order_keys import OrderKeyBody, OrderKeyRevocationBody, OrderKeysView, WalletApprovalBody, read_key
from qubix_protocol.states import OrderKeyKind
from qubix_protocol.wallet_text import Purpose
from qubix_protocol.wallets import WalletsView


@dataclass(frozen=True, slots=True)
class Requested:
    """What a request says, proved by the key itself. `name` and `kind` are its holder's words."""

    public_key: str
    account_id: str
    name: str
    kind: OrderKeyKind


class AsyncOrderKeys:
    """Which keys sign the account's orders. Each change is signed: by this machine's key, or by a wallet that approves
    keys. Only an account that has never had a key takes its first one from whoever is signed in."""

    def __init__(self, session: Session, wallet: Wallet) -> None:
        self._session: Final = session
        self._wallet: Final = wallet

    async def list(self) -> OrderKeysView:
        """Live ones first, then the latest that were revoked."""
        return await self._session.get("/order-keys", OrderKeysView)

    async def request(self, *, name: str = "") -> str:
        """This machine's key asks to sign the account's orders: a text for `add` where a key signs already, good for an
        hour. `name` is what it is listed as."""
        said = OrderKeyRequest(
            account_id=await self._account_id(),
            kind=OrderKeyKind.SDK,
            name=name or device_name(),
            clock_ms=await self._clock_ms(),
        )
        return await statements.signed(self._session, self._wallet, said)

    async def read(self, request: str) -> Requested:
        """What somebody who approves it should look at. Raises `BadUsage` for a text that is no request, `NotGenuine`
        for one that is forged or meant for another market."""
        try:
            raw = bytes.fromhex(request.strip())
        except ValueError:
            raise BadUsage("request", "this is no request of a key", "Copy all of its hex digits.") from None
        network = await self._session.network()
        try:
            opened = read_evidence(raw, network=network.network, sender=None)
            said = opened.body(OrderKeyRequest)
        except ProtocolError as problem:
            raise NotGenuine(
                f"the request cannot be believed: {problem}", remedy="Have the key ask anew, and copy all of it."
            ) from problem
        if opened.header.audience.hex() != network.coordinator_key:
            raise NotGenuine(
                "the request is meant for another market", remedy="Approve it at the market it was made for."
            )
        return Requested(opened.header.sender.hex(), said.account_id, said.name, said.kind)

    async def add(
        self, request: str | None = None, *, wallet: SignsText | None = None, name: str = ""
    ) -> OrderKeysView:
        """Lets the key of a request sign this account's orders, or this machine's own. Signed for by the wallet, if one
        is given, or else by this machine's key: look at `read` first. Adding a key that is there changes nothing.

        Raises `Forbidden` when whoever signs may not, and what `read` raises."""
        own = request is None
        text = (await self.request(name=name) if request is None else request).strip()
        asked, account_id = await self.read(text), await self._account_id()
        if asked.account_id != account_id:
            raise BadUsage(
                "request", f"the key asks for the account {asked.account_id}", "Sign in to that account, or ask anew."
            )
        body = OrderKeyBody(request=text)
        if wallet is not None:
            signed = await signing_in.signed(
                self._session, wallet, Purpose.ADD_ORDER_KEY, account_id, device_name(), asked.public_key
            )
            body = OrderKeyBody(request=text, wallet=signed)
        elif not own:
            digest = digests.of_bytes(bytes.fromhex(text))
            said = OrderKeyApproval(account_id=account_id, request_digest=digest)
            body = OrderKeyBody(request=text, approval=await statements.signed(self._session, self._wallet, said))
        return await self._session.post("/order-keys", body, OrderKeysView, repeatable=False)

    async def revoke(self, public_key: str, *, wallet: SignsText | None = None) -> OrderKeysView:
        """From now on no order of the key is taken, and it never comes back; what was taken stays. Signed for by the
        wallet, or else by this machine's key. The last key is revoked by a wallet alone: raises `Forbidden`."""
        account_id = await self._account_id()
        if wallet is not None:
            signed = await signing_in.signed(
                self._session, wallet, Purpose.REVOKE_ORDER_KEY, account_id, device_name(), public_key
            )
            body = OrderKeyRevocationBody(wallet=signed)
        else:
            said = OrderKeyRevocation(account_id=account_id, public_key=_key(public_key))
            body = OrderKeyRevocationBody(statement=await statements.signed(self._session, self._wallet, said))
        return await self._session.post(f"/order-keys/{public_key}/revoke", body, OrderKeysView, repeatable=False)

    async def trust_wallet(self, identity: str) -> WalletsView:
        """Lets a bound wallet add and revoke keys, too: this machine's key signs for it."""
        try:
            identities.decode(identity)
        except ValueError as problem:
            raise BadUsage("identity", str(problem), "Copy its 60 capital letters.") from None
        said = WalletApproval(account_id=await self._account_id(), identity=identity)
        body = WalletApprovalBody(statement=await statements.signed(self._session, self._wallet, said))
        return await self._session.post(f"/wallets/{identity}/approve", body, WalletsView)

    async def _account_id(self) -> str:
        return (await self._session.get("/account", AccountView)).account_id

    async def _clock_ms(self) -> int:
        await self._session.network()
        return self._session.clock_ms()


def _key(text: str) -> bytes:
    found = read_key(text)
    if found is None:
        raise BadUsage("public_key", "this is no public key", "Give its 64 hex digits.")
    return found
