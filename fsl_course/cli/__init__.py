"""The command line, `python -m fsl_course COMMAND`: a file for each command, and what they share. See docs/commands.md."""
