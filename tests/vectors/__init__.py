"""Vectors from outside, read from ../shared/data/vectors, with the verdict that our rules give each."""
