"""The command line and composition root: imports everything, is imported by nothing."""
