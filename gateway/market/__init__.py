"""Makes clearings, settlements and credit from orders and energies: pure, integers only, one result on every replica."""
