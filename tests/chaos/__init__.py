"""Makes trouble for real replicas: processes over TLS in network namespaces of their own, `python -m tests.chaos`."""
