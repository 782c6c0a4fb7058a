"""Prints how a journal's ring takes a sample of cut points here: step and offset are given; tests/firmware/nor.py is
mounted as /lib/nor.py."""

import sys

from nor import Sweep

STEP, OFFSET = int(sys.argv[1]), int(sys.argv[2])
for shape in ((4, 512, 160, 10), (4, 512, 160, 0), (6, 1024, 200, 45), (5, 4096, 300, 60, 4, 90)):
    sweep = Sweep(shape[0], shape[1], shape[2], shape[3], 5, shape[4:] or (0, 130)).run(STEP, OFFSET)
    for text in sweep.bad[:5]:
        print(text)
    print(shape, sweep.cuts, sweep.again, sweep.flash.erases, sweep.flash.units, sweep.journal.dropped, "bad",
          len(sweep.bad))
