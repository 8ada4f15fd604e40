"""How data sets are on disk: parts that the sources are made of, none of which looks for a set."""
