"""Whole catalogues in and out, as MovieLens' CSV files."""
