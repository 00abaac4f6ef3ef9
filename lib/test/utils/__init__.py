"""Packing results for the test servers."""
