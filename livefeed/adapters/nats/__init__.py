"""NATS: a connection that never closes for good, an own pull, an own publish window.

`PullSubscription.fetch`, `publish_async` and the client's closing on most server errors each lose
or stall messages under faults; what stands here instead is small and measured. Nothing else imports
nats-py.
"""
