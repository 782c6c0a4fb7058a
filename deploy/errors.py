"""Makes the one exception of deploy: nobody answered, so what became of a wish is not known."""


class NoAnswer(Exception):
    """No broker took a message, or no certified receipt came: whether it was executed is not known (ask again)."""
