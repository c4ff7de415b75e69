"""Audits of federations that are not ours: recorded updates become a run folder that attacks, judges and reports read.

``config`` (AUDIT.toml) -> ``arrays`` (files) -> ``naming`` (the model's names) -> ``importing`` (the run folder) ->
``diagnosis`` (what is wrong with the record, by figures) -> ``cell`` and ``judge`` (in place of what studies have).
"""
