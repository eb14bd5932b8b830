"""Behind `python -m fsl_classroom grade FOLDER`: grades notebooks of students in confined processes. See docs/grading.md.

submissions.py  reads FOLDER/STUDENT/*.ipynb
slices.py       which statements an answer needs
rules.py        what an answer must not do, read off its code
expected.py     what an assignment expects: exercises, seeds, points
lanes.py        trusted processes that read the notebooks; feeders.py starts and feeds them
trials.py       has one answer run in a worker, and judges it there or here
cradle.py       processes that fork a worker for every answer and have never held one; supervisor.py watches and ends workers
apart.py        a worker without reference, catalogue and judge; distant.py is the judge's side of it, and codec.py and frames.py
                are the data between both
together.py     a worker in which judge and answer share one process, for exercises on functions and modules
worker.py       what both workers do; answer_builtins.py, guards.py, doors.py, confinement.py and seccomp.py restrict them
folders.py      counts and clears away what answers write
report.py       the records, and the two tables
grade.py        the command; options.py has its options

Two more commands go on from the tables: feedback.py and gradebook.py (after_options.py has their options).
tables.py       reads the tables again
late.py         the late policy
roster.py       who is who on the learning platform
"""
