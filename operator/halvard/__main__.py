"""`python -m halvard` is the command line: where nothing is installed, as in the operator's image."""

from halvard.cli import main

main(prog_name="halvard")
