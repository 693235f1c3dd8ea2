"""One module for each command; every one has `register(app)`."""
