"""Descriptions of networks in repositories of weights, one file per library that writes them."""
