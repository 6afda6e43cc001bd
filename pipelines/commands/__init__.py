"""The subcommands of `marco`: one file per group, imported when it is used; the rest in `run.py` and `score.py`."""
