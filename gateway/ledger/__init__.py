"""The ledger: makes blocks, state and proofs from batches in their agreed order, and keeps them over power cuts."""
