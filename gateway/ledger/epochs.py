"""Makes the list of epochs grow: by a checkpoint of our own, or by handovers that prove the next sets.

A layer of `Ledger` (ledger.py): questions about epochs are `Blocks`', what changes them is here.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate as certificate_codec
from firmware.wire import epochs as epochs_codec
from gateway.contracts import validators
from gateway.ledger import proofs, records
from gateway.ledger.reader import Reader
from gateway.ledger.records import Position
from gateway.ledger.tree import Draft, StateTree


class Epochs(Reader):
    """What a ledger does about sets of validators."""

    _stand: Position
    _tree: StateTree

    def _writing(self) -> AbstractContextManager[None]:
        """Ledger's: one durable transaction."""
        raise ValueError("only a ledger writes")

    def _end_epoch(self) -> None:
        """After a checkpoint whose state names another set: the next block is that set's (pbft.md 3.12)."""
        stand = self._stand
        if stand.n % self.parameters["checkpoint_interval"]:
            return
        record = validators.record_of(Draft(self._tree))
        if record is not None and record.next_rows is not None and record.epoch == self.epoch:
            heights = tuple((channel, height) for channel, height, _ in stand.heads)
            self._put_epochs([*self.epochs, records.Epoch(
                self.epoch + 1, stand.n, heights, record.next_rows, b"", ())])

    def _put_epochs(self, epochs: Sequence[records.Epoch]) -> None:
        self.store.put("facts", records.EPOCHS, records.encode_epochs(epochs))
        self._read_epochs()

    def is_ending(self, epoch: int) -> bool:
        """Whether the state names the set after that of an epoch, which the next checkpoint, or this one, seats."""
        record = validators.record_of(Draft(self._tree))
        return record is not None and record.next_rows is not None and record.epoch == epoch

    def learn_epochs(self, handovers: Sequence[bytes]) -> None:
        """Takes over the sets that come after the newest known one, each proven by the one before: for a ledger that
        takes over a state (its own blocks would say the same). Refused when one does not follow."""
        epochs, sets = list(self.epochs), list(self._sets)
        for data in handovers:
            found = epochs_codec.decode(data)
            top, members = epochs_codec.check_handover(
                found, sets[-1], epochs[-1].number, self.channels, self.chain_id, verify_digest)
            heights = ((self.channels[0], top.height),)
            epochs.append(records.Epoch(epochs[-1].number + 1, 0, heights, certificate_codec.member_lists(members),
                                        data, ()))
            sets.append(members)
        with self._writing():
            self._put_epochs(epochs)

    def prove_epoch(self, epoch: int, proof: Sequence[bytes]) -> None:
        """Keeps the CHECKPOINTs that ended the epoch before, for those who were away."""
        if not self.epochs[epoch].proof:
            with self._writing():
                self._put_epochs([*self.epochs[:epoch], self.epochs[epoch]._replace(proof=tuple(proof)),
                                  *self.epochs[epoch + 1:]])

    def put_handover(self, epoch: int, data: bytes) -> None:
        """Keeps a handover that was checked, of an epoch whose last block before is not here."""
        if not self.epochs[epoch].handover:
            with self._writing():
                self._put_epochs([*self.epochs[:epoch], self.epochs[epoch]._replace(handover=data),
                                  *self.epochs[epoch + 1:]])

    def keep_handovers(self) -> None:
        """Keeps the handovers whose certificate is here by now: the blocks may be gone one day."""
        made = [epoch if epoch.handover or not epoch.number else epoch._replace(
            handover=proofs.prove_handover(self, epoch)) for epoch in self.epochs]
        if made != self.epochs:
            with self._writing():
                self._put_epochs(made)
