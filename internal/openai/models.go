package openai

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxModelsBody = 16 << 20 // bytes of the list: vLLM takes 550 for a name
	maxModels     = 10_000
)

var errModels = errors.New("models list is malformed")

// Model is one entry of vLLM's /v1/models.
type Model struct {
	ID     string
	Parent string // the base of a LoRA adapter, "" for a base model
	MaxLen int64  // context in tokens, 0 where vLLM does not say
	// Created is the time that the engine gives for the model, in Unix seconds.
	Created int64
	// Card is the entry for clients, without paths of the server.
	Card jsontext.Value
}

// modelList is the whole answer.
type modelList struct {
	Data []modelCard `json:"data"`
}

// modelCard is one entry. Only what is named here reaches a client.
type modelCard struct {
	ID          string         `json:"id"`
	Object      jsontext.Value `json:"object,omitzero"`
	Created     *int64         `json:"created,omitzero"`
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

// hidden returns the entry without paths of the server: the id replaces a root that is
// a path, and every root of an adapter.
func (m modelCard) hidden() modelCard {
	if m.Root != nil && (m.Parent != nil || isPath(*m.Root)) {
		m.Root = &m.ID
	}
	if m.Parent != nil && isPath(*m.Parent) {
		m.Parent = nil
	}
	return m
}

// isPath reports whether a root is a path. The name of a model on a hub has at most one
// slash, in its middle.
func isPath(s string) bool {
	return strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") || strings.HasPrefix(s, "~") ||
		strings.HasSuffix(s, "/") || strings.ContainsAny(s, `\:`) || strings.Count(s, "/") > 1
}

// ModelNames reads vLLM's list: one strict JSON document of at most 4 MiB and
// 10,000 entries. Fields that vLLM 0.32 does not have are left out of the cards.
func ModelNames(body []byte) ([]Model, error) {
	list, err := readModels(body)
	if err != nil {
		return nil, err
	}
	models := make([]Model, len(list.Data))
	for i, m := range list.Data {
		card, err := json.Marshal(m.hidden())
		if err != nil {
			return nil, fmt.Errorf("write model: %w", err)
		}
		models[i] = Model{ID: m.ID, Card: card}
		if m.Parent != nil {
			models[i].Parent = *m.Parent
		}
		if m.MaxModelLen != nil {
			models[i].MaxLen = max(0, *m.MaxModelLen)
		}
		if m.Created != nil {
			models[i].Created = *m.Created
		}
	}
	return models, nil
}

// AliasModel returns the entry of a name that leads to other models. Its context is the
// smallest of the known ones.
func AliasModel(name string, behind []Model) Model {
	m := Model{ID: name}
	for _, b := range behind {
		if b.MaxLen > 0 && (m.MaxLen == 0 || b.MaxLen < m.MaxLen) {
			m.MaxLen = b.MaxLen
		}
		m.Created = max(m.Created, b.Created)
	}
	card := appendQuoted([]byte(`{"id":`), name)
	card = strconv.AppendInt(append(card, `,"object":"model","created":`...), m.Created, 10)
	card = appendQuoted(append(card, `,"owned_by":"tollgate","root":`...), name)
	card = append(card, `,"parent":null,"max_model_len":`...)
	if m.MaxLen > 0 {
		card = strconv.AppendInt(card, m.MaxLen, 10)
	} else {
		card = append(card, "null"...)
	}
	card = append(card, '}')
	m.Card = card
	return m
}

// ModelList is the answer of /v1/models, in OpenAI's shape.
func ModelList(models []Model) []byte {
	b := []byte(`{"object":"list","data":[`)
	for i, m := range models {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, m.Card...)
	}
	return append(b, "]}"...)
}

// AnthropicModel is one model in Anthropic's shape.
func AnthropicModel(m Model) []byte {
	b := appendQuoted([]byte(`{"type":"model","id":`), m.ID)
	b = appendQuoted(append(b, `,"display_name":`...), m.ID)
	b = append(b, `,"created_at":"`...)
	b = time.Unix(max(0, m.Created), 0).UTC().AppendFormat(b, time.RFC3339)
	return append(b, `"}`...)
}

// AnthropicModelList is a page of the list in Anthropic's shape; more means that the
// list goes on after this page.
func AnthropicModelList(models []Model, more bool) []byte {
	b := []byte(`{"data":[`)
	first, last := "", ""
	for i, m := range models {
		if i > 0 {
			b = append(b, ',')
		} else {
			first = m.ID
		}
		last = m.ID
		b = append(b, AnthropicModel(m)...)
	}
	b = appendNullable(append(b, `],"first_id":`...), first)
	b = strconv.AppendBool(append(b, `,"has_more":`...), more)
	return append(appendNullable(append(b, `,"last_id":`...), last), '}')
}
