"""The realtime protocol: events of clients and of the server, and what a session does with them."""
