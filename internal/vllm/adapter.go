package vllm

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
)

// Adapter is vLLM's body to load a LoRA adapter.
type Adapter struct {
	Name string `json:"lora_name"`
	// Path is the folder on the engine's machine.
	Path string `json:"lora_path,omitzero"`
	// LoadInplace replaces an adapter of the same name.
	LoadInplace bool `json:"load_inplace,omitzero"`
	Is3D        bool `json:"is_3d_lora_weight,omitzero"`
	// IntID is part of vLLM's body; vLLM does not use it.
	IntID *int `json:"lora_int_id,omitzero"`
}

// Answer is the engine's answer to a change of its adapters.
type Answer struct {
	Status  int
	Message string // the sentence in it
}

// LoadAdapter makes the engine serve an adapter. Any answer of the engine is an
// [Answer]; an error means that there was none.
func (c *Client) LoadAdapter(ctx context.Context, a Adapter) (Answer, error) {
	return c.post(ctx, "/v1/load_lora_adapter", a)
}

// UnloadAdapter makes the engine forget an adapter; answers as of [Client.LoadAdapter].
func (c *Client) UnloadAdapter(ctx context.Context, name string) (Answer, error) {
	return c.post(ctx, "/v1/unload_lora_adapter", Adapter{Name: name})
}

func (c *Client) post(ctx context.Context, path string, a Adapter) (Answer, error) {
	body, err := json.Marshal(a)
	if err != nil {
		return Answer{}, fmt.Errorf("encode adapter: %w", err)
	}
	resp, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(body), true)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := read(resp.Body, maxMessage)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Status: resp.StatusCode, Message: sentence(text)}, nil
}

// sentence is the message in an answer: vLLM answers plain text or an error object.
func sentence(text []byte) string {
	var v struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &v) == nil && v.Error.Message != "" {
		return v.Error.Message
	}
	return strings.TrimSpace(string(text))
}
