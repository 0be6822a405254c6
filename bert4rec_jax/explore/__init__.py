"""Explore: a local web page for trying out models."""
