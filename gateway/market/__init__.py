"""Makes clearings, settlements and credit from orders and energies: pure, integers only, alike on every replica."""
