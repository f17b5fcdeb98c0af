// Stands in for the bundle of BarChart; nothing runs it.
