"""Runs the command line: python -m deepred."""

import sys

from .cli import main

sys.exit(main())
