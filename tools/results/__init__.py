"""Everything behind the results table: trains, evaluates and ships the weights, and draws the table itself.

    python -m tools.results --help          train, evaluate and ship the runs of the table

``runs``            every run of the table, one line each
``trained``         where the weights of a run lie, and whether their card agrees with the run
``actions``         train and ship a run, and say how far each run is
``measure``         evaluate a run, and test weights on the other data set; writes data/results/
``rows``            files of measured rows, which a stopped measurement continues
``table``           the measured rows as Markdown tables
``compare_metric``  the metric methods on the same episodes, for lesson 06
``compare_maml``    the MAML family on the same tasks, for lesson 10
``train_sine``      MAML on sine curves at the paper's budget, for lessons 07 and 08
``half_point``      what the last half point of prototypical networks on Omniglot depends on
"""
