"""The tests. Their folders mirror those of app/."""
