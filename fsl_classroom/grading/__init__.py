"""Behind `python -m fsl_classroom grade FOLDER`: grades notebooks of students in confined processes. See docs/grading.md.

submissions.py  reads FOLDER/STUDENT/*.ipynb
slices.py       which statements an answer needs
rules.py        what an answer must not do, read off its code
lanes.py        trusted processes that read the notebooks
supervisor.py   forks a worker for every answer, watches it and kills it
worker.py       tries one answer in one process; answer_builtins.py, guards.py, doors.py, confinement.py and seccomp.py
                restrict what it can do
report.py       the two tables
grade.py        the command; options.py has its options

Two more commands go on from the tables: feedback.py and gradebook.py (after_options.py has their options).
tables.py       reads the tables again
late.py         the late policy
roster.py       who is who on the learning platform
"""
