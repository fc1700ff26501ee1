"""The HTTP routes, one module per protocol; each gives a blueprint over what it is handed."""
