"""Ingest: makes verified seals and transactions, acks and receipts, from what meters publish on their brokers."""
