"""Device consistency: judgement, rules, pull, and a running area that finds what was altered."""
