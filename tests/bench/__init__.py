"""Makes the house's speeds from the real rooms, beside what the machine itself can do: `python -m tests.bench`."""
