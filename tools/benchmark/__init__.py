"""Times of the course beside other libraries, and of its parts beside what the machine can do: `python -m tools.benchmark`.

``works``      the works and their goals, without PyTorch
``options``    the command line, without PyTorch
``runner``     runs the works and prints or writes their rows
``measure``    alternating repeats, medians, and the rule that nothing is timed before both sides agree
``peers``      what the other libraries are given: a data set, a net in their order of layers, their own classes
``checkouts``  learn2learn and higher from source checkouts
``sampling``  ``metric``  ``maml``  ``convolutions``  ``time_to``    the works
``time_to_course``  ``time_to_easyfsl``  ``report``    the two processes of ``time_to``, and what they report
``scaling``    cost against ways, shots, tasks and inner steps, and its figure
"""
