"""Makes a broker that misbehaves out of one that does not: a proxy in front of it, rules, and a port to change them."""
