"""Where captions go: a table of all pictures (a module a format), or a file for each of them."""
