"""Makes thousands of faulty lives of a cluster from seeds, in virtual time, and judges each after every event.

One seed decides everything. The `Replica` is the real one; network, disks, clocks, ledgers and liars are models. The
way of an event: `world` picks it, a `machine` drives its Replica and obeys the Ready, `judge` holds invariants 1 to 12
of the PBFT specification against everything the honest machines said, kept and executed.
"""
