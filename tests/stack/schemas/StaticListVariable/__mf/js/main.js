// Stands in for the bundle of StaticListVariable; nothing runs it.
