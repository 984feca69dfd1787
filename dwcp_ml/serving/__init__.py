"""The model server, and the log of what it answered."""
