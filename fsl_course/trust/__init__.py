"""Why this answer, how sure it is, and what breaks it: judgements of learners that exist."""
