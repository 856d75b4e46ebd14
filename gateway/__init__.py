"""The gateway: pushes updates to every connected device, and brings returning ones up to date.

It holds no state that cannot be rebuilt: positions come from the clients, updates from the log.
"""
