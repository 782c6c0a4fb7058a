"""The trader and the commands of the market: against real gateways and brokers, and its decisions alone."""
