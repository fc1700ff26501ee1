"""Captioning on several machines: the same rows as on one, in parts, under Ray Data.

The driver lists what there is and deals it out in groups; tasks read them, workers caption them, and the driver writes
each part when all of it is there. A part that is there is done: whatever dies, a worker, a machine or the driver, what
is missing is captioned by those that are left, or by the next run.
"""
