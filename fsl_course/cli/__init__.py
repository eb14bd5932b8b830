"""The command line, `python -m fsl_course COMMAND`. docs/commands.md describes it for users.

`options.py`   every option of train and evaluate, and how the command line is read; needs no PyTorch
`presets.toml` the recipes of the papers, as values of these options; `presets.py` reads them
`terminal.py`  exit statuses, and errors in one line
`data.py`      the image set that --data names
`train.py`     the command train
`cards.py`     the JSON files that train writes beside its weights
`evaluate.py`  the command evaluate
`results.py`   the command results: tables of measured accuracies
`doctor.py`    the command doctor: checks an installation; needs no PyTorch
"""
