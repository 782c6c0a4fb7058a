"""The contracts: make one result code an item, and the next state, from the state before; alike on every replica."""
