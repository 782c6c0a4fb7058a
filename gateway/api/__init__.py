"""HTTP: makes pages and JSON from views of a replica's state; nothing here can change anything."""
