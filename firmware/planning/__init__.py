"""Makes predictions from a configuration before anything runs: how long a bus takes, how long a journal lasts."""
