"""The figures of the README, each measured by one file. `python -m bench NAME` prints one JSON object as its last line."""
