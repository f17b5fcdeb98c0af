// Stands in for the bundle of Prometheus; nothing runs it.
