"""The functions that move updates from the stream to the log, and the short-lived workers that run them."""
