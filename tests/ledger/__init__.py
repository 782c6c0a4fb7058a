"""Tests of the ledger: blocks, state, store, proofs, votes."""
