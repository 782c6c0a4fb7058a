"""Whole-system tests: what a user types, what may break underneath, and the ledger that must come out."""
