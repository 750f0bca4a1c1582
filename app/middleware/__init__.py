"""What every request passes through, one file a middleware."""
