"""`python -m distjudge_trl`: the command line."""

from distjudge_trl.cli import main


main()
