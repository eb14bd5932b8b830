"""python -m fsl_classroom grade FOLDER: notebooks that students handed in, graded in confinement. See docs/grading.md.

submissions.py  reads FOLDER/STUDENT/*.ipynb
slices.py       which statements an answer needs
rules.py        what an answer must not do, read off its code
lanes.py        trusted processes that fork a worker for every answer, watch it and kill it
worker.py       one answer in one process; guards.py, doors.py, confinement.py and seccomp.py hold it
report.py       the two tables
grade.py        the command; options.py its options
"""
