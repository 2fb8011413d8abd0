"""Configuration: from the command line and conf/ to a run that is wired; the only room that reads `cfg`."""
