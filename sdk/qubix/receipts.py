# SPDX-License-Identifier: Apache-2.0
"""Receipts on the reader's own machine: `verify` needs the file and public keys, no coordinator and no network.

receipt = qubix.receipts.verify(Path("job.receipt").read_bytes(), coordinator_key)
print("\\n".join(receipt.words()))
receipt.check_result(job.result())
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from qubix.errors import BadUsage, NotGenuine
from qubix_protocol import chain, job_receipt
from qubix_protocol.arrays import Array, pack_arrays
from qubix_protocol.digests import of_bytes
from qubix_protocol.errors import Malformed, ProtocolError
from qubix_protocol.job_receipt import AttemptProof, JobOpened, JobProof
from qubix_protocol.states import REASON_TEXT

Keys = str | bytes | Iterable[str | bytes]
"""Coordinators' public keys: 32 bytes or 64 hex digits each; one, or several."""
_ORDERS_TRIED: Final = 5
"""Outputs of a job whose order inside a part is found by trying; beyond it the receipt's own order is taken."""


@dataclass(frozen=True, slots=True)
class JobReceipt:
    """A receipt that was checked here. `raw` is the file; `proof` has everything in it, typed."""

    raw: bytes
    proof: JobProof

    @property
    def closed(self) -> bool:
        """False while the job was not over when the receipt was fetched: it then holds as far as it goes."""
        return self.proof.closed is not None

    def words(self) -> list[str]:
        """What the receipt proves, one sentence a line."""
        return _words(self.proof)

    def check_result(self, outputs: Mapping[str, Array]) -> None:
        """That these arrays, by the names they have on the wire, are what was checked and paid. Raises `NotGenuine`."""
        _check_result(self.proof, outputs)


def verify(data: bytes, keys: Keys, *, order_key: str | bytes | None = None) -> JobReceipt:
    """Checks a job's receipt. `keys` are those of the coordinators that the reader trusts; with `order_key` the order
    must be there and signed by it.

    Raises `NotGenuine` with what does not hold, `BadUsage` for a key that is none.
    """
    trusted = [_key(one, "keys") for one in ([keys] if isinstance(keys, (str, bytes)) else keys)]
    try:
        proof = job_receipt.prove(*chain.from_file(data), coordinator_keys=trusted)
    except ProtocolError as error:
        raise NotGenuine(
            f"the receipt does not hold: {error}",
            remedy="Fetch it again with `qubix job receipt JOB --out FILE`; if it stays so, keep it as evidence.",
        ) from error
    if order_key is not None:
        _check_consumer(proof, _key(order_key, "order_key"))
    return JobReceipt(data, proof)


def signer_of(data: bytes) -> str:
    """The coordinator's key that the receipt itself names, in hex: to look up whether it is a trusted one.

    Raises `NotGenuine` for what is no receipt.
    """
    try:
        return chain.claimed_signer(chain.from_file(data)[1]).hex()
    except ProtocolError as error:
        raise NotGenuine(
            f"this is not a receipt: {error}", remedy="Give a file of `qubix job receipt --out`."
        ) from error


def _key(given: str | bytes, field: str) -> bytes:
    try:
        key = bytes.fromhex(given) if isinstance(given, str) else given
    except ValueError:
        key = b""
    if len(key) != 32:
        raise BadUsage(field, f"{str(given)[:80]!r} is not a public key", "Give 64 hex digits")
    return key


def _check_consumer(proof: JobProof, key: bytes) -> None:
    if proof.order_key is None:
        raise NotGenuine("the job came without a signed order: nothing in it is signed by the consumer")
    if proof.order_key != key:
        raise NotGenuine(f"the order was signed by {proof.order_key.hex()}, not by {key.hex()}")


# Words --------------------------------------------------------------------------------------------------------------


def _words(proof: JobProof) -> list[str]:
    opened = proof.opened
    lines = [
        f"The coordinator {', '.join(key.hex() for key in proof.coordinator_keys)} signed all {proof.entries} entries"
        f" of job {proof.job_id} on {proof.network}; none is missing, added or out of its place.",
        f"On {_moment(proof.opened_ms)} it {_held(opened)} for {opened.units:,} units of {opened.kernel}.",
        _ordered(proof),
    ]
    lines += [line for number, one in enumerate(proof.attempts, 1) for line in _attempt_words(number, one)]
    return [*lines, *_end_words(proof)]


def _held(opened: JobOpened) -> str:
    if opened.rental is not None:
        return f"was given to rental {opened.rental}, whose time pays for everything,"
    return f"held {opened.hold_qu:,} QU"


def _ordered(proof: JobProof) -> str:
    if proof.order_key is None:
        return "No order was sent with the job: nothing here is signed by the consumer."
    return f"The consumer's key {proof.order_key.hex()} signed the order: kernel, parameters, inputs and cap."


def _attempt_words(number: int, one: AttemptProof) -> list[str]:
    terms, links = one.terms, len(one.parts)
    signed = "and its report" if one.report else "and no report"
    lines = [
        f"Attempt {number}: provider {terms.provider} ({terms.model}, {terms.backend}) at"
        f" {terms.rate_qu_per_h:,} QU an hour; it signed {links} checkpoint{'s' * (links != 1)} {signed}."
    ]
    if one.settlement is None and one.verdict is None:
        ended = one.ended
        if ended is None:
            return [*lines, f"Attempt {number} was under way."]
        why = REASON_TEXT[ended.reason] or ended.reason.value
        checked = "its outputs waited for the check" if links else "nothing was checked or paid"
        return [*lines, f"Attempt {number} ended ({why}); {checked}."]
    if one.seed is not None:
        lines.append(
            f"Attempt {number}: its outputs were committed to (…{one.head.hex()[-16:]}) before the check's randomness"
            f" was drawn, which depends on them (seed …{one.seed.hex()[-16:]})."
        )
    done = one.settlement
    if done is None:
        return [*lines, f"Attempt {number}: its outputs were checked; {one.owed_qu:,} QU were owed, and not paid yet."]
    lines.append(
        f"Attempt {number}: {done.verdict}; {done.units_accepted:,} units paid by {done.billed_ms / 1000:,.3f} s:"
        f" {done.paid_qu:,} QU to the provider, {done.fee_qu:,} QU fee. The sum was done again here."
    )
    return lines


def _end_words(proof: JobProof) -> list[str]:
    closed = proof.closed
    if closed is None:
        return [f"The job was NOT over on {_moment(proof.as_of_ms)}: this shows how far it was, and no more."]
    return [
        f"It ended {closed.state.value} on {_moment(proof.closed_ms or 0)}"
        f" ({REASON_TEXT[closed.reason] or closed.reason.value}).",
        f"Of {closed.hold_qu:,} QU held, {closed.paid_qu:,} were paid, {closed.fee_qu:,} were fees and"
        f" {closed.returned_qu:,} returned.",
    ]


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# The result that was paid -------------------------------------------------------------------------------------------


def _check_result(proof: JobProof, outputs: Mapping[str, Array]) -> None:
    parts = proof.paid_parts()
    if not parts:
        raise NotGenuine("no part of the job was paid: no result belongs to this receipt")
    names = [one.name for one in proof.opened.outputs]
    if set(names) != set(outputs):
        raise NotGenuine(
            f"the job's outputs are {', '.join(names)}; given are {', '.join(sorted(outputs)) or 'none'}",
            remedy="Give the folder that `qubix job result` wrote.",
        )
    rows, paid = {array.shape[0] if array.ndim else 0 for array in outputs.values()}, _units(proof)
    if rows != {paid}:
        raise NotGenuine(f"{paid:,} units were paid, the result has {', '.join(str(one) for one in sorted(rows))} rows")
    order = _order_of(names, outputs, parts[0].link.units.units, parts[0].link.output_digest)
    at = 0
    for part in parts:
        size, units = part.link.units.units, part.link.units
        if order is None or _digest(order, outputs, at, at + size) != part.link.output_digest:
            raise NotGenuine(
                f"units {units.start:,} to {units.stop:,} are not what was checked and paid"
                f" (paid was {part.link.output_digest.hex()})",
                remedy="Fetch the result again; what is here was changed, or belongs to another job.",
            )
        at += size


def _units(proof: JobProof) -> int:
    return sum(part.link.units.units for part in proof.paid_parts())


def _order_of(names: list[str], outputs: Mapping[str, Array], size: int, digest: bytes) -> tuple[str, ...] | None:
    """In which order the providers packed a part's arrays: the first part tells."""
    tried = itertools.permutations(names) if len(names) <= _ORDERS_TRIED else iter([tuple(names)])
    return next((order for order in tried if _digest(order, outputs, 0, size) == digest), None)


def _digest(order: Iterable[str], outputs: Mapping[str, Array], start: int, stop: int) -> bytes:
    try:
        return of_bytes(pack_arrays({name: outputs[name][start:stop] for name in order}))
    except Malformed as error:
        raise NotGenuine(f"the result cannot be a job's: {error}") from error
