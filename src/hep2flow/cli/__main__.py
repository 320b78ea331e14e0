"""``python -m hep2flow.cli``."""

from hep2flow.cli.main import main

main()
