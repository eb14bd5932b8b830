"""What a teacher makes out of the course: an nbgrader course, tests and quizzes, pages to print.

``nbgrader_course``   an nbgrader course out of the lessons
``quiz``              tests with answer keys, Moodle questions and pages of the book out of the quiz bank
``printable``         Markdown pages as HTML that prints well
``allowed_imports``   the table of what an answer may import, which grading reads
"""
