"""The gateway: makes one provable ledger, kept alike by several replicas, from the envelopes that meters send."""
