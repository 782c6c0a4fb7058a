"""The tests: `./gridseal test`, or `python -m tests` in an environment with the extra `test`; not installed."""
