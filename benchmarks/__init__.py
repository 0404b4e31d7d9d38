"""How fast Tallybook is, each number beside a reference measured in the same run: `python -m benchmarks`."""
