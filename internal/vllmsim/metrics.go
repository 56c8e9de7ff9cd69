package vllmsim

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// metrics answers /metrics with the series of a real server that say
// something about load and tokens. The label model_name is the first served
// name: adapters are not told apart.
func (s *Sim) metrics(w http.ResponseWriter, _ *http.Request) {
	_, t := s.current()
	model := string(appendString(nil, s.opts.Models[0]))
	w.Header().Set("Content-Type", "text/plain; version=1.0.0; charset=utf-8")
	_, _ = w.Write([]byte(t.exposition(model, &s.opts))) // the client may be gone
}

// exposition is the text of all series; model is quoted.
func (t *tally) exposition(model string, o *Options) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &exposition{labels: `engine="0",model_name=` + model}
	e.head("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.")
	fmt.Fprintf(e, "process_start_time_seconds %.2f\n", float64(t.began.UnixMilli())/1000)
	e.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", t.sequences)
	e.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", t.sequencesWait)
	e.head("vllm:num_requests_waiting_by_reason", "gauge", "Number of waiting requests by reason.")
	e.labeled("vllm:num_requests_waiting_by_reason", `,reason="capacity"`, int64(t.sequencesWait))
	e.labeled("vllm:num_requests_waiting_by_reason", `,reason="deferred"`, 0)
	e.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", 0)
	e.counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens.", t.cacheQueries)
	e.counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.", t.cachedTokens)
	e.counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", 0)
	e.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", t.PromptTokens)
	e.counter("vllm:prompt_tokens_cached_total", "Number of cached prompt tokens (local + external).", t.cachedTokens)
	e.counter("vllm:generation_tokens_total", "Number of generation tokens processed.", t.generated.Load())
	e.head("vllm:request_success_total", "counter", "Count of successfully processed requests.")
	for _, reason := range []string{"stop", "length", finishAbort, "error", "repetition"} {
		// A call of a tool is a stop to the engine.
		n := t.success[reason]
		if reason == "stop" {
			n += t.success[finishTools]
		}
		e.series("vllm:request_success_total", `engine="0",finished_reason="`+reason+`",model_name=`+model, n)
	}
	e.head("vllm:admission_rejections_total", "counter", "Number of requests rejected at admission.")
	e.series("vllm:admission_rejections_total", `model_name=`+model+`,reason="max_num_queued_reqs"`, t.busy)
	e.series("vllm:admission_rejections_total", `model_name=`+model+`,reason="max_num_queued_tokens"`, 0)
	e.head("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig")
	e.series("vllm:cache_config_info", fmt.Sprintf(cacheConfig, o.BlockSize, o.CacheBlocks, o.BlockSize*o.CacheBlocks), 1)
	if o.EnableLoRA {
		e.head("vllm:lora_requests_info", "gauge", "Running stats on lora requests.")
		e.series("vllm:lora_requests_info", `max_lora="1",running_lora_adapters="`+t.runningAdapters()+`",waiting_lora_adapters=""`, time.Now().Unix())
	}
	return e.String()
}

// cacheConfig are the labels of vllm:cache_config_info: block size, blocks, tokens.
const cacheConfig = `_block_size_resolved="True",block_size="%[1]d",cache_dtype="auto",cache_hit_alignment_tokens="None",effective_attention_block_size="%[1]d",` +
	`enable_mamba_shared_prefix_checkpoint="False",enable_prefix_caching="True",engine="0",gpu_memory_utilization="0.92",hash_block_size="None",` +
	`is_attention_free="False",kv_cache_dtype_skip_layers="[]",kv_cache_layout="None",kv_cache_max_concurrency="512.0",kv_cache_memory_bytes="1073741824",` +
	`kv_cache_size_tokens="%[3]d",kv_offloading_backend="native",kv_offloading_size="None",kv_sharing_fast_prefill="False",mamba_block_size="None",` +
	`mamba_cache_dtype="auto",mamba_cache_mode="none",mamba_page_size_padded="None",mamba_ssm_cache_dtype="float32",num_cpu_blocks="None",` +
	`num_gpu_blocks="%[2]d",num_gpu_blocks_override="None",prefix_cache_retention_interval="0",prefix_caching_hash_algo="sha256",prefix_match_unit="None",` +
	`replayssm_buffer_len="16",skip_page_size_padded="None",sliding_window="None",swa_bounded_replay="True",use_kda_recoverssm="False",` +
	`use_replayssm="False",user_specified_block_size="False"`

// runningAdapters names the adapters in use. The caller holds mu.
func (t *tally) runningAdapters() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(t.adapters)) {
		if name != "" && t.adapters[name] > 0 {
			quoted := strconv.Quote(name)
			names = append(names, quoted[1:len(quoted)-1])
		}
	}
	return strings.Join(names, ",")
}

// exposition writes the Prometheus text format as Python's client does:
// values are floats.
type exposition struct {
	strings.Builder
	labels string
}

func (e *exposition) head(name, kind, help string) {
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (e *exposition) series(name, labels string, v int64) {
	fmt.Fprintf(e, "%s{%s} %d.0\n", name, labels, v)
}

// labeled is a series with the usual labels and more, which begin with a comma.
func (e *exposition) labeled(name, more string, v int64) { e.series(name, e.labels+more, v) }

func (e *exposition) gauge(name, help string, v int) {
	e.head(name, "gauge", help)
	e.series(name, e.labels, int64(v))
}

func (e *exposition) counter(name, help string, v int64) {
	e.head(name, "counter", help)
	e.series(name, e.labels, v)
}
