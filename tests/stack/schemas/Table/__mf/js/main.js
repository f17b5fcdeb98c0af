// Stands in for the bundle of Table; nothing runs it.
