package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTollgateHearsWhichNamesTracesShallHave(t *testing.T) {
	got := serviceEnv([]string{
		"OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental", "OTEL_SERVICE_NAME=gate", "OTEL_RESOURCE_ATTRIBUTES=a=b",
		"OTEL_EXPORTER_OTLP_HEADERS=authorization=x", "A_SECRET=y", "PATH=/bin",
	})
	want := []string{"OTEL_RESOURCE_ATTRIBUTES=a=b", "OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental", "OTEL_SERVICE_NAME=gate", "PATH=/bin"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
