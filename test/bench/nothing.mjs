// An empty program, to compare with.
export {}
