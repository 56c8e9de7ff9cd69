package openai

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxModelsBody = 4 << 20 // bytes of vLLM's list
	maxModels     = 10_000
)

var errModels = errors.New("models list is malformed")

// Model is one entry of vLLM's /v1/models.
type Model struct {
	ID     string
	Parent string // the base of a LoRA adapter, "" for a base model
	MaxLen int64  // context in tokens, 0 where vLLM does not say
}

// modelList is the whole answer. Only what is named here reaches a client.
type modelList struct {
	Object jsontext.Value `json:"object,omitzero"`
	Data   []modelCard    `json:"data"`
}

type modelCard struct {
	ID          string         `json:"id"`
	Object      jsontext.Value `json:"object,omitzero"`
	Created     jsontext.Value `json:"created,omitzero"`
	OwnedBy     jsontext.Value `json:"owned_by,omitzero"`
	Root        *string        `json:"root"`
	Parent      *string        `json:"parent"`
	MaxModelLen *int64         `json:"max_model_len"`
	Permission  jsontext.Value `json:"permission,omitzero"`
}

func readModels(body []byte) (modelList, error) {
	var list modelList
	if len(body) > maxModelsBody {
		return list, fmt.Errorf("read models: %w: more than %d bytes", errModels, maxModelsBody)
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return list, fmt.Errorf("read models: %w", err)
	}
	if list.Data == nil || len(list.Data) > maxModels {
		return list, fmt.Errorf("read models: %w: no data, or more than %d entries", errModels, maxModels)
	}
	for _, m := range list.Data {
		if m.ID == "" {
			return list, fmt.Errorf("read models: %w: an entry has no id", errModels)
		}
	}
	return list, nil
}

// FilterModels cuts vLLM's list down to the models that allowed accepts, in
// their order, and hides where they lie on the server: a root that is a path,
// and every root of an adapter, becomes the id. Fields that vLLM 0.32 does not
// have are left out. The body must be one strict JSON document of at most
// 4 MiB and 10,000 entries.
func FilterModels(body []byte, allowed func(name string) bool) ([]byte, error) {
	list, err := readModels(body)
	if err != nil {
		return nil, err
	}
	kept := make([]modelCard, 0, len(list.Data))
	for _, m := range list.Data {
		if !allowed(m.ID) {
			continue
		}
		if m.Root != nil && (m.Parent != nil || isPath(*m.Root)) {
			m.Root = &m.ID
		}
		if m.Parent != nil && isPath(*m.Parent) {
			m.Parent = nil
		}
		kept = append(kept, m)
	}
	list.Data = kept
	out, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("write models: %w", err)
	}
	return out, nil
}

// isPath tells a place from a name: a hub's name has at most one slash, in its
// middle.
func isPath(s string) bool {
	return strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") || strings.HasPrefix(s, "~") ||
		strings.HasSuffix(s, "/") || strings.ContainsAny(s, `\:`) || strings.Count(s, "/") > 1
}

// ModelNames reads the names out of vLLM's list, under the same bounds as
// [FilterModels].
func ModelNames(body []byte) ([]Model, error) {
	list, err := readModels(body)
	if err != nil {
		return nil, err
	}
	models := make([]Model, len(list.Data))
	for i, m := range list.Data {
		models[i].ID = m.ID
		if m.Parent != nil {
			models[i].Parent = *m.Parent
		}
		if m.MaxModelLen != nil {
			models[i].MaxLen = max(0, *m.MaxModelLen)
		}
	}
	return models, nil
}
