"""Makes the signed traffic of thousands of meters without Modbus, for load tests, with the mistakes of real ones."""
