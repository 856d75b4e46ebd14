"""`python -m livefeed.cli` is `livefeed`."""

from livefeed.cli.main import main

main()
