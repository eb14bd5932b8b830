"""Makes the web book, the slides, and the tables in README.md.

build       writes what Sphinx reads, calls it, and checks the result
pages       lists of lessons, tables of methods, the navigation
results     the tables of the results page
lessons     the page of a lesson: stub, folded solution, outputs
slides      reveal.js slides from a lesson
try_page    the page that needs no kernel: draw a thing once, and it is found again
api         the pages of the public modules
docstrings  plain docstrings as reStructuredText
links       links of the repository's pages, made to work in the book
access      mends the finished HTML
check       what must hold for every built page
diagrams    the drawings of the course, in docs/diagrams
readme      the parts of README.md that are made from elsewhere
vendor      scripts of others, fetched by npm
"""
