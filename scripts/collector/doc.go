// Package collector holds the collector that tests look at spans with: the OTLP receiver
// of the OpenTelemetry Collector, which prints what it receives. It has modules of its
// own, in collector.mod, so that the product has none of them; scripts/build_collector.py
// builds it.
package collector
