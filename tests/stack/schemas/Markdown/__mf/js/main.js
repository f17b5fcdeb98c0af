// Stands in for the bundle of Markdown; nothing runs it.
