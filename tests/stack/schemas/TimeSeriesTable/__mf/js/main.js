// Stands in for the bundle of TimeSeriesTable; nothing runs it.
