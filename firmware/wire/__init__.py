"""The contract: every byte that leaves a meter or a gateway, from values, and back; one set of files for all."""
