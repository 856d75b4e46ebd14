"""What moves updates from the stream to the log, and the short-lived workers that run it."""
