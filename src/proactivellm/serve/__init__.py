"""Live streams behind a network address: OpenAI's realtime protocol, REST, operation.

Nothing here steps an engine: every turn of a session is an `AsyncStream` of a `Worker`, and the
rest is transport. `app.create_app` puts it together.
"""
