"""Formats of data sets on disk: parts that the sources are made of; none looks for a set."""
