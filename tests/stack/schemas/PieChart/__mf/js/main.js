// Stands in for the bundle of PieChart; nothing runs it.
