"""The tools that make and measure everything around the two packages: `python -m tools.ROOM` or `python -m tools.ROOM.FILE`.

``notebooks``   notebooks out of the lessons
``book``        the web book and README
``results``     the results table and the comparisons of the lessons
``benchmark``   times beside other libraries
``kit``         the folder that runs without a network
``data``        the embedded data sets and their checksums
``classroom``   an nbgrader course, quizzes and pages to print
``setup``       shell scripts that make environments and pins
"""
