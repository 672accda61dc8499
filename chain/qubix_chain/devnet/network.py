# SPDX-License-Identifier: Apache-2.0
"""The devnet itself: engine, memory and faults behind the calls that the HTTP edge makes. Never waits for anything."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qubix_chain import crypto, identity
from qubix_chain.contracts import AMOUNT_QU_MAX
from qubix_chain.devnet import engine, faults, rules
from qubix_chain.devnet.engine import Chain, Tick
from qubix_chain.devnet.errors import BadRequest, CannotStart, Internal, Missing
from qubix_chain.devnet.faults import LIES, Fault, Faults
from qubix_chain.devnet.rules import Entity, Tx
from qubix_chain.devnet.store import Invented, Store
from qubix_chain.k12 import k12
from qubix_chain.transaction import Transaction

log = logging.getLogger(__name__)
PEERS: Final = 3
FAUCET_QU: Final = 100 * 10**12
FIRST_EPOCH: Final = 200
FIRST_TICK: Final = 30_000_000
FAUCET_AHEAD: Final = rules.LIST_AHEAD + 1
STEPS_MAX: Final = 10_000
JUMP_MAX: Final = 1_000_000
_TICK_MAX: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How this devnet behaves. `archive_lag` counts ticks that are final and that the archive does not tell yet."""

    seed: int = 0
    archive_lag: int = 2
    slots: int = rules.TICK_SLOTS


class Network:
    """`now_ms` dates the ticks. Everything is written before a call returns."""

    def __init__(self, store: Store, behaviour: Rules, now_ms: Callable[[], int]) -> None:
        self._store, self._rules, self._now_ms = store, behaviour, now_ms
        self._faucet_subseed = crypto.subseed(faucet_seed(behaviour.seed))
        self._faucet_key = crypto.public_key(crypto.private_key(self._faucet_subseed))
        found = store.load(lambda raw: tx_of(raw, verify=False), behaviour.slots)
        self.chain: Chain = found or self._genesis()
        if store.meta()["seed"] != str(behaviour.seed):
            raise CannotStart(
                f"this ledger was made with seed {store.meta()['seed']}, not {behaviour.seed}."
                " Set QUBIX_DEVNET_SEED to that, or remove the devnet's folder"
            )
        self.faults = self._load_faults()
        self.archived = int(store.meta()["archived"])
        self._requests = 0

    def _genesis(self) -> Chain:
        balances = {self._faucet_key: FAUCET_QU}
        made = engine.genesis(balances, tick=FIRST_TICK, epoch=FIRST_EPOCH, slots=self._rules.slots)
        self._store.save_genesis(made, archived=str(FIRST_TICK - 1), minted=str(FAUCET_QU), seed=str(self._rules.seed))
        return made

    def _load_faults(self) -> Faults:
        kept = self._store.meta().get("faults")
        return faults.restored(self._rules.seed, **json.loads(kept)) if kept else Faults(self._rules.seed)

    def save_faults(self) -> None:
        self._store.put_json("faults", self.faults.as_json())

    @property
    def store(self) -> Store:
        return self._store

    @property
    def minted(self) -> int:
        return int(self._store.meta()["minted"])

    @property
    def faucet_identity(self) -> str:
        return identity.encode(self._faucet_key)

    # The network's own API

    def request_fault(self, *kinds: Fault) -> Fault | None:
        """Which of these befalls the request that came in just now."""
        self._requests += 1
        hit = next((kind for kind in kinds if self.faults.hit(kind, self._requests)), None)
        if hit is not None:
            self.save_faults()
        return hit

    def entity(self, public_key: bytes) -> Entity:
        return self.chain.entities.get(public_key, Entity())

    def broadcast(self, raw: bytes) -> str:
        """The transaction's id. Neither its balance nor its fate is looked at. Raises BadRequest or Internal."""
        try:
            tx = tx_of(raw)
        except ValueError as problem:
            raise BadRequest(str(problem)) from None
        if tx.tick <= self.chain.tick:
            raise BadRequest(
                f"Target tick: {tx.tick} for the transaction should be greater than max tick: {self.chain.tick}"
            )
        if self.request_fault(Fault.NO_PEERS):
            raise Internal("tx wasn't broadcast to any peers, please retry")
        self._arrive(tx)
        return tx.id

    def _arrive(self, tx: Tx) -> None:
        lost = self.faults.hit(Fault.DROP_TRANSACTION, tx.id)
        times = 1 + self.faults.hit(Fault.DUPLICATE_TRANSACTION, tx.id)
        with self._store.transaction():
            for _ in range(times):
                admission = self.chain.submit(tx, lost=lost)
                self._store.save_admission(self.chain, admission)
                if admission.dropped is not None:
                    log.info("devnet.dropped", extra={"tx": tx.id, "tick": tx.tick, "why": str(admission.dropped)})
            self.save_faults()

    # The clock

    def slow(self) -> bool:
        """Whether the tick that runs next takes long."""
        hit = self.faults.hit(Fault.SLOW_TICK, self.chain.tick)
        if hit:
            self.save_faults()
        return hit

    def step(self, count: int = 1) -> int:
        """So many ticks, or ticks' times of a pause; all are written together. Returns how many ticks were made."""
        made = 0
        with self._store.transaction():
            for _ in range(count):
                made += self._step() is not None
        return made

    def _step(self) -> Tick | None:
        if self.chain.tick >= _TICK_MAX:
            raise Internal("the last tick number there can be is reached. Remove the devnet's folder")
        empty = not self.chain.pause_left and self.faults.hit(Fault.EMPTY_TICK, self.chain.tick)
        tick = self.chain.step(self._now_ms(), empty=empty)
        if tick is None:
            self._store.save_pause(self.chain)
            return None
        lies = {one.tx.id: frozenset(kind for kind in LIES if self.faults.hit(kind, one.tx.id)) for one in tick.done}
        self._store.save_tick(self.chain, tick, lies, self.archived)
        if self.faults.hit(Fault.ARCHIVE_INVENTS, tick.number):
            self._invent_from_nothing(tick)
        self._archive(lagging=self.faults.hit(Fault.LAGGING_ARCHIVE, tick.number))
        self.save_faults()
        return tick

    def _archive(self, *, lagging: bool) -> None:
        """The archive goes on, up to its usual distance; it never goes back."""
        reached = None if lagging else self._store.ticks_before(self.chain.tick, self._rules.archive_lag)
        if reached is not None and reached > self.archived:
            self.archived = reached
            self._store.put_meta(archived=str(reached))

    def switch_epoch(self, *, jump: int, pause: int) -> None:
        if self.chain.tick == self.chain.initial_tick:
            raise BadRequest("the epoch has no tick yet. Step at least one tick before the next epoch")
        self.chain.switch_epoch(jump=jump, pause=pause)
        self._store.save_pause(self.chain)

    # The faucet

    def pay(self, destination: bytes, amount: int) -> Tx:
        """A real transfer from the genesis identity, signed and broadcast like anybody's. Raises BadRequest."""
        available = min(self.entity(self._faucet_key).balance, AMOUNT_QU_MAX)
        if not 1 <= amount <= available:
            raise BadRequest(f"amount: the faucet pays 1 to {available} QU at once, not {amount}")
        tick = self.chain.tick + FAUCET_AHEAD
        while (tx := self._faucet_tx(destination, amount, tick)).id in self.chain.pool.get(tick, ()):
            tick += 1
        self._arrive(tx)
        return tx

    def _faucet_tx(self, destination: bytes, amount: int, tick: int) -> Tx:
        """Signing is deterministic: the same payment at the same tick is the same transaction."""
        built = Transaction.build(source=self._faucet_key, destination=destination, amount=amount, tick=tick)
        return tx_of(built.sign(self._faucet_subseed).to_bytes(), verify=False)

    # Lies

    def lie(self, kind: Fault, tx_id: str) -> None:
        """Aims a fault of those BY_TRANSACTION at one: at once when it ran, else when it does."""
        if kind in LIES and self._store.lie(kind, tx_id):
            return
        self.faults.aimed.setdefault(kind, set()).add(tx_id)
        self.save_faults()

    def invent(self, destination: bytes, amount: int) -> Invented:
        """The newest tick gets a payment that never was. Raises Missing before the first tick."""
        tick = self._store.ticks_before(self.chain.tick, 0)
        if tick is None:
            raise Missing("there is no tick yet. Step one first")
        return self._invent(tick, destination, amount)

    def _invent_from_nothing(self, tick: Tick) -> None:
        """To whoever was paid of late, so that somebody may believe it."""
        paid = sorted(self.chain.entities, key=lambda key: (self.chain.entities[key].incoming_tick, key))
        self._invent(tick.number, paid[-1], 1 + int(faults.draw(self._rules.seed, "amount", tick.number) * 10**6))

    def _invent(self, tick: int, destination: bytes, amount: int) -> Invented:
        said = f"{self._rules.seed} {tick} {destination.hex()} {amount}".encode()
        found = Invented(
            id=identity.encode_tx_id(k12(said)),
            tick=tick,
            source=self._faucet_key,
            destination=destination,
            amount=amount,
            signature=hashlib.sha512(said).digest(),
        )
        self._store.invent(found)
        return found

    def heal(self) -> None:
        """No more faults, and the archive tells the truth about the past too."""
        self.faults.clear()
        with self._store.transaction():
            self._store.tell_the_truth()
            self.save_faults()


def tx_of(raw: bytes, *, verify: bool = True) -> Tx:
    """Raises ValueError that says which rule the bytes break."""
    found = Transaction.parse(raw, verify=verify)
    return Tx(
        found.id,
        found.source,
        found.destination,
        found.amount,
        found.tick,
        found.input_type,
        found.payload,
        raw,
    )


def faucet_seed(seed: int) -> str:
    """The genesis identity's. Public by design, as those of public test networks are: it holds play money."""
    digest = hashlib.sha512(f"qubix devnet faucet {seed}".encode()).digest()
    return "".join(chr(ord("a") + byte % 26) for byte in digest[:55])
