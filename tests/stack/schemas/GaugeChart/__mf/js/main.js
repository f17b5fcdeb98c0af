// Stands in for the bundle of GaugeChart; nothing runs it.
