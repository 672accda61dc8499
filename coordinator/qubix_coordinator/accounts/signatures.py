# SPDX-License-Identifier: Apache-2.0
"""Whether a wallet signed a text: strictly, and with a reason when not (shared rules: qubix_chain.crypto, .messages).

Takes some milliseconds of processor time: not for an event loop.
"""

from typing import Final

from qubix_chain import crypto, identity, messages
from qubix_chain.fourq import N
from qubix_coordinator.errors import (
    BadIdentity,
    SignatureInvalid,
    SignatureNotCanonical,
    WeakKey,
    WrongScheme,
)
from qubix_protocol.wallet_text import Scheme

_TWIN: Final = {Scheme.RAW: Scheme.PREFIXED, Scheme.PREFIXED: Scheme.RAW}
_BY: Final = {Scheme.RAW: "the browser extension signs", Scheme.PREFIXED: "WalletConnect wallets sign"}


def key_of(text: str) -> bytes:
    """The public key of an identity. Raises BadIdentity that says which rule it breaks."""
    try:
        return identity.decode(text)
    except ValueError as problem:
        raise BadIdentity(
            "identity", str(problem), "Copy the 60 capital letters from your wallet, as it shows them"
        ) from None


def require_signer(public_key: bytes) -> None:
    """Raises WeakKey for an address that no seed has: nobody, or everybody, could sign for it."""
    if not crypto.is_public_key(public_key):
        raise WeakKey(
            "no wallet can sign for this identity: it is a contract's or the null address, or a weak key",
            field="identity",
            remedy="Use the identity of a wallet that holds its seed",
        )


def check(public_key: bytes, text: str, signature: bytes, scheme: Scheme) -> None:
    """Raises WeakKey, SignatureNotCanonical, WrongScheme or SignatureInvalid."""
    require_signer(public_key)
    if len(signature) != crypto.SIGNATURE_SIZE:
        raise SignatureInvalid(
            f"a signature has {crypto.SIGNATURE_SIZE} bytes, this one {len(signature)}",
            field="signature",
            remedy="Send all of the wallet's signature, as hex digits",
        )
    if int.from_bytes(signature[32:], "little") >= N:
        raise SignatureNotCanonical(
            "this is a second spelling of a signature, which the network refuses too",
            field="signature",
            remedy="Send the signature as the wallet gave it",
        )
    if _signed(public_key, text, signature, scheme):
        return
    if _signed(public_key, text, signature, _TWIN[scheme]):
        raise WrongScheme(
            f"the text was signed as {_BY[_TWIN[scheme]]} it, and `scheme` says {scheme.value!r}",
            field="scheme",
            remedy=f"Send `scheme` {_TWIN[scheme].value!r}",
        )
    raise SignatureInvalid(
        "the signature is not this identity's over this text",
        field="signature",
        remedy="Sign the text exactly as it was issued, with the account of this identity",
    )


def _signed(public_key: bytes, text: str, signature: bytes, scheme: Scheme) -> bool:
    return crypto.verify(public_key, messages.digest(text, messages.Scheme(scheme.value)), signature)
