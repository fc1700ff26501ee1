"""The service described for programs (OpenAPI 3.1) and, from the same description, for people.

A module per protocol tells its operations, as a module of :mod:`service.routes` answers them.
"""
