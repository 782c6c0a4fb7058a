"""One order of batches from many gateways' proposals: PBFT as a machine of values, without any input or output."""
