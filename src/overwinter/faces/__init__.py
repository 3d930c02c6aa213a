"""Ways in: each turns a request into one call of the App."""
