"""Times the course beside other libraries: `python -m tools.benchmark`. `--help` lists the works and the options."""

import sys

from fsl_course.cli.terminal import exit_status
from tools.benchmark import options

if __name__ == "__main__":
    arguments = options.parser().parse_args()
    sys.exit(exit_status(lambda: options.run(arguments)))
