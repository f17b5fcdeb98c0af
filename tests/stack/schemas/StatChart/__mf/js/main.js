// Stands in for the bundle of StatChart; nothing runs it.
