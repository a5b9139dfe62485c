"""What the backend does when asked to change something: plain functions on a transaction, one per mutation."""
