"""Explore: a local web page to try a model on."""
