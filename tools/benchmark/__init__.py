"""Races of the course against other libraries, and of its parts against the machine: `python -m tools.benchmark`.

``options``    the command line, without PyTorch
``measure``    interleaved repeats, medians, and the rule that nothing is timed before both sides agree
``peers``      what the other libraries are given: a data set, a net in their order, their own classes
``sampling`` ``metric`` ``maml`` ``convolutions`` ``time_to``    the works
``scaling``    cost against ways, shots, tasks and inner steps, and its figure
``runner``     runs the works and prints their rows
"""
