"""The tests, by layer. Each has a database of its own."""
