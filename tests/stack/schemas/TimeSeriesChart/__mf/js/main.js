// Stands in for the bundle of TimeSeriesChart; nothing runs it.
