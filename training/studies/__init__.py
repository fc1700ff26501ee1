"""Studies: the same training again and again, with one thing changed each time.

``levers.toml`` and ``family.toml`` are the shipped ones, ``results`` holds what they gave.
:mod:`training.studies.study` reads a study, :mod:`training.studies.measuring` measures its models,
:mod:`training.studies.table` prints what was found; :mod:`training.compare` is the command.
"""
